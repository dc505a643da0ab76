`timescale 1ns / 1ps
// align: term = x * 2^(N - amount), rounded to an integer and limited to -2^N to 2^N; combinational, or in STAGES
// cycles (`enable` bit k loads the registers after stage k).
// docs/numerics.md (Block formats, `term`). One shift right of x * 2^N: what falls out last rounds.
module align #(
    parameter int X_BITS = 20,
    parameter int ACCUMULATOR_BITS = 28,  // N
    parameter bit NEAREST = 1'b1,  // 0: down
    parameter int STAGES = 1,
    parameter int ENABLES = STAGES > 1 ? STAGES - 1 : 1,
    parameter int AMOUNT_BITS = $clog2(X_BITS + ACCUMULATOR_BITS + 1),
    parameter int TERM_BITS = ACCUMULATOR_BITS + 2
) (
    input  logic                          clk,
    input  logic        [    ENABLES-1:0] enable,
    input  logic signed [     X_BITS-1:0] x,
    input  logic        [AMOUNT_BITS-1:0] amount,  // to X_BITS + N
    output logic signed [  TERM_BITS-1:0] term
);
  localparam int WIDE = X_BITS + ACCUMULATOR_BITS + 1;  // and one bit after the point
  // Rounding and limits in levels of the shifter.
  localparam int END_LEVELS = 3;
  function automatic int levels_after(int stages);
    levels_after = (stages * (AMOUNT_BITS + END_LEVELS) + STAGES / 2) / STAGES;
    if (levels_after > AMOUNT_BITS) levels_after = AMOUNT_BITS;
  endfunction

  for (genvar s = 0; s < STAGES; s++) begin : stages
    // The longest shifts first.
    localparam int DONE = levels_after(s);
    localparam int LEFT = AMOUNT_BITS - levels_after(s + 1);
    localparam logic [AMOUNT_BITS-1:0] OWN = AMOUNT_BITS'(((1 << (AMOUNT_BITS - DONE)) - 1) >> LEFT << LEFT);
    logic signed [WIDE-1:0] taken, left;
    logic [AMOUNT_BITS-1:0] by;
    if (s == 0) begin : own
      assign taken = {x, {(ACCUMULATOR_BITS + 1) {1'b0}}};
      assign by = amount;
    end else begin : stored
      logic signed [WIDE-1:0] held;
      logic [AMOUNT_BITS-1:0] held_by;
      always_ff @(posedge clk) begin
        if (enable[s-1]) begin
          held <= stages[s-1].left;
          held_by <= stages[s-1].by;
        end
      end
      assign taken = held;
      assign by = held_by;
    end
    assign left = taken >>> (by & OWN);
    logic unused;
    assign unused = &{1'b0, by};
  end

  logic signed [WIDE-1:0] shifted;
  logic signed [WIDE-2:0] whole;
  logic round;
  assign shifted = stages[STAGES-1].left;
  assign whole = shifted[WIDE-1:1];
  assign round = NEAREST && shifted[0];
  localparam logic signed [WIDE-2:0] LIMIT = (WIDE - 1)'(1) << ACCUMULATOR_BITS;
  always_comb begin
    if (whole >= LIMIT) term = TERM_BITS'(LIMIT);
    else if (whole < -LIMIT) term = TERM_BITS'(-LIMIT);
    else term = TERM_BITS'(whole) + TERM_BITS'({1'b0, round});
  end
  logic unused_bits;
  assign unused_bits = &{1'b0, clk, enable, shifted[0], whole};
endmodule
