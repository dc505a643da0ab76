`timescale 1ns / 1ps
// ppu_quantize: a_q = clip((z * rec + 2^(14+e+F)) >> (15+e+F), lo, qmax) of one lane; combinational.
// docs/numerics.md (PPU, per-vector `a_q`).
module ppu_quantize #(
    parameter int OUT_BITS = 4,
    parameter int SIGNED_FRACTION = 8,
    parameter int UNSIGNED_FRACTION = 8
) (
    input  logic signed [        40:0] product,
    input  logic        [         3:0] exponent,
    input  logic                       out_signed,
    output logic        [OUT_BITS-1:0] code
);
  localparam logic signed [41:0] SIGNED_MAX = 42'((1 << (OUT_BITS - 1)) - 1);
  localparam logic signed [41:0] UNSIGNED_MAX = 42'((1 << OUT_BITS) - 1);

  logic [5:0] shift;
  logic signed [41:0] rounded, high, low, clipped;
  assign shift = 6'd15 + 6'(exponent) + (out_signed ? 6'(SIGNED_FRACTION) : 6'(UNSIGNED_FRACTION));
  assign rounded = (42'(product) + $signed(42'd1 << (shift - 6'd1))) >>> shift;
  assign high = out_signed ? SIGNED_MAX : UNSIGNED_MAX;
  assign low = out_signed ? -SIGNED_MAX : 42'sd0;
  assign clipped = rounded > high ? high : rounded < low ? low : rounded;
  assign code = clipped[OUT_BITS-1:0];
  logic unused;
  assign unused = &{1'b0, clipped[41:OUT_BITS]};
endmodule
