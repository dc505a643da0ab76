`timescale 1ns / 1ps
// ppu_block_shift: |z| of one lane, shifted to the scale of its block; combinational.
// docs/numerics.md (Block formats, Output, 5). What lies above the WHOLE bits is `over`, below them one bit, `half`, and
// whether there is more, `sticky`.
module ppu_block_shift #(
    parameter int WHOLE = 4,
    parameter int AMOUNT_BITS = 5
) (
    input  logic signed [           23:0] z,
    input  logic        [AMOUNT_BITS-1:0] amount,
    output logic        [      WHOLE+3:0] shifted  // {negative, over, whole, half, sticky}
);
  // Bits that a shift by 0 has above the point, which are beyond every code: WHOLE, so that any amount is a shift right.
  localparam int WIDE = 23 + WHOLE + 1;
  logic signed [23:0] absolute;
  logic [WIDE-1:0] wide, kept;
  logic negative, over, sticky;
  assign negative = z < 0;
  assign absolute = negative ? -z : z;
  assign wide = {absolute[22:0], {(WHOLE + 1) {1'b0}}};
  assign kept = wide >> amount;
  assign sticky = (kept << amount) != wide;
  assign over = kept[WIDE-1:WHOLE+1] != '0;
  assign shifted = {negative, over, kept[WHOLE:0], sticky};
  logic unused;
  assign unused = &{1'b0, absolute[23]};
endmodule
