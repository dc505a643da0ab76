`timescale 1ns / 1ps
// ppu_vector_scale: s = clip((vmax + added) // (qmax * 2^F), 1, 2^as - 1), added = qmax * 2^F // 2, or with
// SCALES_UP qmax * 2^F - 1; combinational, by restoring division.
// docs/numerics.md (PPU, per-vector `s`). // nests: first by 2^F, then by qmax.
module ppu_vector_scale #(
    parameter int OUT_BITS = 4,
    parameter int OUT_SCALE_BITS = 4,
    parameter bit SCALES_UP = 1'b1,
    parameter int SIGNED_FRACTION = 8,
    parameter int UNSIGNED_FRACTION = 8
) (
    input  logic [              22:0] largest,
    input  logic                      out_signed,
    output logic [OUT_SCALE_BITS-1:0] scale
);
  localparam int WIDTH = 24 + OUT_BITS + OUT_SCALE_BITS;
  localparam int SIGNED_MAX = (1 << (OUT_BITS - 1)) - 1;
  localparam int UNSIGNED_MAX = (1 << OUT_BITS) - 1;
  localparam int SIGNED_UNIT = SIGNED_MAX << SIGNED_FRACTION;  // below 2^16
  localparam int UNSIGNED_UNIT = UNSIGNED_MAX << UNSIGNED_FRACTION;
  localparam int SIGNED_ADDED = SCALES_UP ? SIGNED_UNIT - 1 : SIGNED_UNIT / 2;
  localparam int UNSIGNED_ADDED = SCALES_UP ? UNSIGNED_UNIT - 1 : UNSIGNED_UNIT / 2;

  logic [23:0] whole;
  assign whole = out_signed ? ({1'b0, largest} + 24'(SIGNED_ADDED)) >> SIGNED_FRACTION
                            : ({1'b0, largest} + 24'(UNSIGNED_ADDED)) >> UNSIGNED_FRACTION;

  logic [WIDTH-1:0] qmax, rest;
  logic [OUT_SCALE_BITS-1:0] quotient;
  logic beyond;
  assign qmax = out_signed ? WIDTH'(SIGNED_MAX) : WIDTH'(UNSIGNED_MAX);

  always_comb begin
    rest = WIDTH'(whole);
    beyond = rest >= (qmax << OUT_SCALE_BITS);
    quotient = '0;
    for (int b = OUT_SCALE_BITS - 1; b >= 0; b--) begin
      if (rest >= (qmax << b)) begin
        rest = rest - (qmax << b);
        quotient[b] = 1'b1;
      end
    end
    scale = beyond ? '1 : quotient == '0 ? OUT_SCALE_BITS'(1) : quotient;
  end
endmodule
