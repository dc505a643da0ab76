`timescale 1ns / 1ps
// ppu_multiply: sat((psum * m + 2^(t-1)) >> t) of one lane; combinational.
// docs/numerics.md (PPU, first line of z).
module ppu_multiply #(
    parameter int ACCUMULATOR_BITS = 24
) (
    input  logic signed [ACCUMULATOR_BITS-1:0] psum,
    input  logic        [                15:0] multiplier,
    input  logic        [                 5:0] shift,       // 1 to 63
    output logic signed [                23:0] scaled
);
  localparam int SUM_BITS = ACCUMULATOR_BITS + 17;
  localparam logic signed [SUM_BITS-1:0] LIMIT = SUM_BITS'(8388607);

  logic signed [SUM_BITS-1:0] half, shifted;
  assign half = SUM_BITS'(1) << (shift - 6'd1);
  assign shifted = (SUM_BITS'(psum) * $signed(SUM_BITS'({1'b0, multiplier})) + half) >>> shift;

  logic signed [23:0] fitting;
  assign fitting = shifted[23:0];
  always_comb begin
    // From this shift on |psum * m| is at most the half, and the rounded result 0.
    if (32'(shift) >= ACCUMULATOR_BITS + 16) scaled = '0;
    else if (shifted > LIMIT) scaled = 24'sd8388607;
    else if (shifted < -LIMIT) scaled = -24'sd8388607;
    else scaled = fitting;
  end
endmodule
