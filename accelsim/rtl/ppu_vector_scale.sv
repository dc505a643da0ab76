`timescale 1ns / 1ps
// ppu_vector_scale: s = clip((vmax + added) // (qmax * 2^F), 1, 2^as - 1), added = qmax * 2^F // 2, or with
// SCALES_UP qmax * 2^F - 1; combinational, but for a register after the addition (WHOLE_REGISTERED).
// docs/numerics.md (PPU, per-vector `s`). // nests: first by 2^F, then by qmax = 2^b - 1. For n < 2^(b k)
//   n // (2^b - 1) = ((n + 1) * (1 + 2^b + ... + 2^(b (k-1)))) >> (b k),
// as the sum falls short of (n + 1) / (2^b - 1) by 1 / (2^b - 1) at most, and by more than nothing: a division is
// one addition of copies of n and a constant. Where it is 0, n is below qmax, which is known before the sum.
module ppu_vector_scale #(
    parameter int OUT_BITS = 4,
    parameter int OUT_SCALE_BITS = 4,
    parameter bit SCALES_UP = 1'b1,
    parameter int SIGNED_FRACTION = 8,
    parameter int UNSIGNED_FRACTION = 8,
    parameter bit WHOLE_REGISTERED = 1'b0
) (
    input  logic                      clk,
    input  logic                      enable,
    input  logic [              22:0] largest,
    input  logic                      out_signed,
    output logic [OUT_SCALE_BITS-1:0] scale
);
  localparam int SIGNED_UNIT = ((1 << (OUT_BITS - 1)) - 1) << SIGNED_FRACTION;  // below 2^16
  localparam int UNSIGNED_UNIT = ((1 << OUT_BITS) - 1) << UNSIGNED_FRACTION;
  localparam int SIGNED_ADDED = SCALES_UP ? SIGNED_UNIT - 1 : SIGNED_UNIT / 2;
  localparam int UNSIGNED_ADDED = SCALES_UP ? UNSIGNED_UNIT - 1 : UNSIGNED_UNIT / 2;
  // n of at most as + b bits below the limit of s.
  localparam int NARROW = OUT_BITS - 1;  // b; a code of one bit and sign has none
  localparam int SIGNED_TERMS = (OUT_SCALE_BITS + NARROW - 1) / NARROW + 1;
  localparam int UNSIGNED_TERMS = (OUT_SCALE_BITS + OUT_BITS - 1) / OUT_BITS + 1;
  localparam int WIDTH = OUT_SCALE_BITS + 1 + OUT_BITS * UNSIGNED_TERMS > OUT_SCALE_BITS + 1 + NARROW * SIGNED_TERMS
      ? OUT_SCALE_BITS + 1 + OUT_BITS * UNSIGNED_TERMS : OUT_SCALE_BITS + 1 + NARROW * SIGNED_TERMS;

  logic [23:0] whole_now, whole;  // n
  assign whole_now = out_signed ? ({1'b0, largest} + 24'(SIGNED_ADDED)) >> SIGNED_FRACTION
                            : ({1'b0, largest} + 24'(UNSIGNED_ADDED)) >> UNSIGNED_FRACTION;

  stage #(.WIDTH(24), .REGISTERED(WHOLE_REGISTERED))
      stage_whole (.clk, .reset(1'b0), .enable, .in(whole_now), .out(whole));

  logic [WIDTH-1:0] n, signed_sum, unsigned_sum;
  logic [OUT_SCALE_BITS:0] quotient;
  logic beyond, none;
  assign beyond = out_signed ? 32'(whole) >> (OUT_SCALE_BITS + NARROW) != 0
                             : 32'(whole) >> (OUT_SCALE_BITS + OUT_BITS) != 0;
  assign none = whole < (out_signed ? 24'((1 << NARROW) - 1) : 24'((1 << OUT_BITS) - 1));
  assign n = WIDTH'(whole[(OUT_SCALE_BITS+OUT_BITS < 24?OUT_SCALE_BITS+OUT_BITS : 24)-1:0]);
  always_comb begin
    signed_sum = '0;
    unsigned_sum = '0;
    for (int i = 0; i < SIGNED_TERMS; i++)
      signed_sum = signed_sum + (n << (NARROW * i)) + (WIDTH'(1) << (NARROW * i));
    for (int i = 0; i < UNSIGNED_TERMS; i++)
      unsigned_sum = unsigned_sum + (n << (OUT_BITS * i)) + (WIDTH'(1) << (OUT_BITS * i));
    quotient = (OUT_SCALE_BITS+1)'(out_signed ? signed_sum >> (NARROW * SIGNED_TERMS)
                                              : unsigned_sum >> (OUT_BITS * UNSIGNED_TERMS));
    scale = quotient[OUT_SCALE_BITS-1:0] | {OUT_SCALE_BITS{beyond || quotient[OUT_SCALE_BITS]}};
    scale[0] = scale[0] | none;
  end
endmodule
