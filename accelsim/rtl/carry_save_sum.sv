`timescale 1ns / 1ps
// carry_save_sum: sum of ROWS words modulo 2^BITS in STAGES cycles; the registers after the last are outside.
// docs/rtl.md (Pipeline of a step).
// A carry-save tree and one adder, cut where the stages are about as long as each other; what a cut crosses is
// stored where `enable` is set (bit k: the registers after stage k). The netlists that are priced are cut alike.
module carry_save_sum #(
    parameter int ROWS = 3,
    parameter int BITS = 8,
    parameter int STAGES = 2,
    parameter int ENABLES = STAGES > 1 ? STAGES - 1 : 1
) (
    input  logic                 clk,
    input  logic [  ENABLES-1:0] enable,
    input  logic [ROWS*BITS-1:0] rows,
    output logic [     BITS-1:0] sum
);
  // What the last adder takes, in levels of the tree.
  localparam int ADDER_LEVELS = 4;
  localparam int MOST_LEVELS = 32;

  function automatic int rows_after(int levels);
    rows_after = ROWS;
    for (int i = 0; i < levels; i++) rows_after = 2 * (rows_after / 3) + rows_after % 3;
  endfunction
  // Calls no other function: to Icarus it would not be constant.
  function automatic int levels_of_tree(int count);
    levels_of_tree = 0;
    for (int i = 0; i < MOST_LEVELS; i++) begin
      levels_of_tree = levels_of_tree + (count > 2 ? 1 : 0);
      count = count > 2 ? 2 * (count / 3) + count % 3 : count;
    end
  endfunction
  localparam int LEVELS = levels_of_tree(ROWS);
  // Levels done at the end of a number of stages; cuts never fall into the adder.
  function automatic int levels_after(int stages);
    levels_after = (stages * (LEVELS + ADDER_LEVELS) + STAGES / 2) / STAGES;
    if (levels_after > LEVELS) levels_after = LEVELS;
  endfunction

  for (genvar s = 0; s < STAGES; s++) begin : stages
    localparam int FIRST = levels_after(s);
    localparam int LAST = levels_after(s + 1);
    localparam int TAKEN = rows_after(FIRST);
    localparam int LEFT = rows_after(LAST);
    logic [TAKEN*BITS-1:0] taken;
    logic [ LEFT*BITS-1:0] left;
    if (s == 0) begin : own
      assign taken = rows;
    end else begin : stored
      logic [TAKEN*BITS-1:0] held;
      always_ff @(posedge clk) if (enable[s-1]) held <= stages[s-1].left;
      assign taken = held;
    end
    carry_save #(
        .ROWS  (TAKEN),
        .BITS  (BITS),
        .LEVELS(LAST - FIRST),
        .REST  (LEFT)
    ) carry_save (
        .rows(taken),
        .rest(left)
    );
  end
  localparam int REST = rows_after(LEVELS);
  if (REST == 2) begin : adder
    assign sum = stages[STAGES-1].left[BITS-1:0] + stages[STAGES-1].left[2*BITS-1:BITS];
  end else begin : one
    assign sum = stages[STAGES-1].left;
  end
  logic unused;
  assign unused = &{1'b0, clk, enable};
endmodule
