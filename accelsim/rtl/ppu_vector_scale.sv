`timescale 1ns / 1ps
// ppu_vector_scale: s = clip(ceil(vmax / (qmax * 2^F)), 1, 2^as - 1); combinational, by restoring division.
// docs/numerics.md (PPU, per-vector `s`). ceil nests: first by 2^F, then by qmax;
// ceil(u / q) = floor((u - 1) / q) + 1 for u > 0.
module ppu_vector_scale #(
    parameter int OUT_BITS = 4,
    parameter int OUT_SCALE_BITS = 4,
    parameter int SIGNED_FRACTION = 8,
    parameter int UNSIGNED_FRACTION = 8
) (
    input  logic [              22:0] largest,
    input  logic                      out_signed,
    output logic [OUT_SCALE_BITS-1:0] scale
);
  localparam int WIDTH = 24 + OUT_BITS + OUT_SCALE_BITS;
  localparam logic [WIDTH-1:0] SIGNED_MAX = WIDTH'((1 << (OUT_BITS - 1)) - 1);
  localparam logic [WIDTH-1:0] UNSIGNED_MAX = WIDTH'((1 << OUT_BITS) - 1);
  localparam logic [23:0] SIGNED_UP = 24'((1 << SIGNED_FRACTION) - 1);
  localparam logic [23:0] UNSIGNED_UP = 24'((1 << UNSIGNED_FRACTION) - 1);

  logic [23:0] whole;
  assign whole = out_signed ? ({1'b0, largest} + SIGNED_UP) >> SIGNED_FRACTION
                            : ({1'b0, largest} + UNSIGNED_UP) >> UNSIGNED_FRACTION;

  logic [WIDTH-1:0] qmax, rest;
  logic [OUT_SCALE_BITS-1:0] quotient;
  logic beyond;
  assign qmax = out_signed ? SIGNED_MAX : UNSIGNED_MAX;

  always_comb begin
    rest = whole == '0 ? '0 : WIDTH'(whole) - WIDTH'(1);
    beyond = rest >= (qmax << OUT_SCALE_BITS);
    quotient = '0;
    for (int b = OUT_SCALE_BITS - 1; b >= 0; b--) begin
      if (rest >= (qmax << b)) begin
        rest = rest - (qmax << b);
        quotient[b] = 1'b1;
      end
    end
    scale = (beyond || quotient == '1) ? '1 : quotient + 1'b1;
  end
endmodule
