`timescale 1ns / 1ps
// ppu_quantize: a_q = clip(value + round, lo, qmax) of one lane; combinational.
// docs/numerics.md (PPU, per-vector `a_q`).
module ppu_quantize #(
    parameter int OUT_BITS = 4
) (
    input  logic signed [OUT_BITS+1:0] value,
    input  logic                       round,
    input  logic                       out_signed,
    output logic        [OUT_BITS-1:0] code
);
  localparam int W = OUT_BITS + 2;
  localparam logic signed [W-1:0] SIGNED_MAX = W'((1 << (OUT_BITS - 1)) - 1);
  localparam logic signed [W-1:0] UNSIGNED_MAX = W'((1 << OUT_BITS) - 1);

  logic signed [W-1:0] rounded, high, low, clipped;
  assign rounded = value + W'({1'b0, round});  // |value| < 2^(W-1) - 1 where round is set
  assign high = out_signed ? SIGNED_MAX : UNSIGNED_MAX;
  assign low = out_signed ? -SIGNED_MAX : '0;
  assign clipped = rounded > high ? high : rounded < low ? low : rounded;
  assign code = clipped[OUT_BITS-1:0];
  logic unused;
  assign unused = &{1'b0, clipped[W-1:OUT_BITS]};
endmodule
