`timescale 1ns / 1ps
// ppu_static: a code from z at a static output scale, of one lane; combinational.
// docs/numerics.md (PPU, `static`). F of either sign follows from the format: min(8, 23 - Amag).
module ppu_static #(
    parameter int OUT_BITS = 8
) (
    input  logic signed [        23:0] z,
    input  logic                       out_signed,
    output logic        [OUT_BITS-1:0] code
);
  // 23 - Amag is at least 15 for codes of at most 8 bits, so F is 8 for both signs.
  localparam logic signed [24:0] SIGNED_MAX = 25'((1 << (OUT_BITS - 1)) - 1);
  localparam logic signed [24:0] UNSIGNED_MAX = 25'((1 << OUT_BITS) - 1);

  logic signed [24:0] rounded, high, low, clipped;
  assign rounded = (25'(z) + 25'sd128) >>> 8;
  assign high = out_signed ? SIGNED_MAX : UNSIGNED_MAX;
  assign low = out_signed ? -SIGNED_MAX : 25'sd0;
  assign clipped = rounded > high ? high : rounded < low ? low : rounded;
  assign code = clipped[OUT_BITS-1:0];
  logic unused;
  assign unused = &{1'b0, clipped[24:OUT_BITS]};
endmodule
