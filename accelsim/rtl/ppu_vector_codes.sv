`timescale 1ns / 1ps
// ppu_vector_codes: integer codes and scales of a slice, once the largest |z| of its vectors is known.
// docs/numerics.md (PPU, per-vector output). Registers lie after: D the maximum, E scale, F reciprocal, G multiply by it;
// FINE adds more, after the addition of the scale (S), the partial products of the multiply (P) and its shift (Q).
// Natural latency 8, FINE 15.
module ppu_vector_codes #(
    parameter int LANES = 16,
    parameter int VECTORS = 1,
    parameter int OUT_BITS = 4,
    parameter int OUT_SCALE_BITS = 4,
    parameter bit SCALES_UP = 1'b1,
    parameter bit FINE = 1'b0,
    parameter int LATENCY = 8,
    parameter int SLICE_BITS = 1
) (
    input  logic                              clk,
    input  logic                              reset,
    input  logic                              out_signed,
    input  logic [                       2:0] go_out,       // ppu_gather's
    input  logic [            SLICE_BITS-1:0] slice_leave,
    input  logic [              LANES*24-1:0] leaving,
    input  logic [            VECTORS*23-1:0] largest,
    output logic [                       1:0] go_last,      // {a slice, the last of the tile}
    output logic [            SLICE_BITS-1:0] slice_last,
    output logic [        LANES*OUT_BITS-1:0] codes,
    output logic [VECTORS*OUT_SCALE_BITS-1:0] scales_last
);
  localparam int NEVER = 1 << 20;
  localparam int AT_D = FINE ? 9 : 5;
  localparam int AT_S = FINE ? 10 : NEVER;
  localparam int AT_E = FINE ? 11 : 6;
  localparam int AT_F = FINE ? 12 : 7;
  localparam int AT_P = FINE ? 13 : NEVER;
  localparam int AT_G = FINE ? 14 : 8;
  localparam int AT_Q = FINE ? 15 : NEVER;
  localparam int ROOM_SIGNED = 23 - (OUT_BITS - 1) - OUT_SCALE_BITS;
  localparam int ROOM_UNSIGNED = 23 - OUT_BITS - OUT_SCALE_BITS;
  localparam int SIGNED_FRACTION = ROOM_SIGNED < 8 ? ROOM_SIGNED : 8;
  localparam int UNSIGNED_FRACTION = ROOM_UNSIGNED < 8 ? ROOM_UNSIGNED : 8;
  localparam int OWN = LANES / VECTORS;  // lanes of a vector in one slice
  localparam int Z = LANES * 24;
  localparam int S = VECTORS * OUT_SCALE_BITS;
  localparam int E = VECTORS * 4;

  logic [Z-1:0] leaving_d, leaving_s, leaving_e, leaving_f;
  logic [VECTORS*23-1:0] largest_d;
  // {output, first of its vector, last of tile}
  logic [2:0] go_d, go_s, go_e, go_f, go_p, go_g, go_q;
  logic [SLICE_BITS-1:0] slice_d, slice_s, slice_e, slice_f, slice_p, slice_g;
  logic [S-1:0] scales, scales_e, scales_f, scales_p, scales_g;
  logic [VECTORS*16-1:0] reciprocals, reciprocals_f;
  logic [E-1:0] exponents, exponents_f, exponents_p, exponents_g;
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_D))
      stage_go_d (.clk, .reset, .enable(1'b1), .in(go_out), .out(go_d));
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_S))
      stage_go_s (.clk, .reset, .enable(1'b1), .in(go_d), .out(go_s));
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_E))
      stage_go_e (.clk, .reset, .enable(1'b1), .in(go_s), .out(go_e));
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_F))
      stage_go_f (.clk, .reset, .enable(1'b1), .in(go_e), .out(go_f));
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_P))
      stage_go_p (.clk, .reset, .enable(1'b1), .in(go_f), .out(go_p));
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_G))
      stage_go_g (.clk, .reset, .enable(1'b1), .in(go_p), .out(go_g));
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_Q))
      stage_go_q (.clk, .reset, .enable(1'b1), .in(go_g), .out(go_q));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_D))
      stage_slice_d (.clk, .reset(1'b0), .enable(go_out[2]), .in(slice_leave), .out(slice_d));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_S))
      stage_slice_s (.clk, .reset(1'b0), .enable(go_d[2]), .in(slice_d), .out(slice_s));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_E))
      stage_slice_e (.clk, .reset(1'b0), .enable(go_s[2]), .in(slice_s), .out(slice_e));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_F))
      stage_slice_f (.clk, .reset(1'b0), .enable(go_e[2]), .in(slice_e), .out(slice_f));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_P))
      stage_slice_p (.clk, .reset(1'b0), .enable(go_f[2]), .in(slice_f), .out(slice_p));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_G))
      stage_slice_g (.clk, .reset(1'b0), .enable(go_p[2]), .in(slice_p), .out(slice_g));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_Q))
      stage_slice_q (.clk, .reset(1'b0), .enable(go_g[2]), .in(slice_g), .out(slice_last));
  stage #(.WIDTH(VECTORS * 23), .REGISTERED(LATENCY >= AT_D))
      stage_largest_d (.clk, .reset(1'b0), .enable(go_out[1]), .in(largest), .out(largest_d));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_D))
      stage_leaving_d (.clk, .reset(1'b0), .enable(go_out[2]), .in(leaving), .out(leaving_d));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_S))
      stage_leaving_s (.clk, .reset(1'b0), .enable(go_d[2]), .in(leaving_d), .out(leaving_s));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_E))
      stage_leaving_e (.clk, .reset(1'b0), .enable(go_s[2]), .in(leaving_s), .out(leaving_e));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_F))
      stage_leaving_f (.clk, .reset(1'b0), .enable(go_e[2]), .in(leaving_e), .out(leaving_f));
  stage #(.WIDTH(S), .REGISTERED(LATENCY >= AT_E))
      stage_scales_e (.clk, .reset(1'b0), .enable(go_s[1]), .in(scales), .out(scales_e));
  stage #(.WIDTH(S), .REGISTERED(LATENCY >= AT_F))
      stage_scales_f (.clk, .reset(1'b0), .enable(go_e[1]), .in(scales_e), .out(scales_f));
  stage #(.WIDTH(S), .REGISTERED(LATENCY >= AT_P))
      stage_scales_p (.clk, .reset(1'b0), .enable(go_f[1]), .in(scales_f), .out(scales_p));
  stage #(.WIDTH(S), .REGISTERED(LATENCY >= AT_G))
      stage_scales_g (.clk, .reset(1'b0), .enable(go_p[1]), .in(scales_p), .out(scales_g));
  stage #(.WIDTH(S), .REGISTERED(LATENCY >= AT_Q))
      stage_scales_q (.clk, .reset(1'b0), .enable(go_g[1]), .in(scales_g), .out(scales_last));
  stage #(.WIDTH(VECTORS * 16), .REGISTERED(LATENCY >= AT_F))
      stage_reciprocals_f (.clk, .reset(1'b0), .enable(go_e[1]), .in(reciprocals), .out(reciprocals_f));
  stage #(.WIDTH(E), .REGISTERED(LATENCY >= AT_F))
      stage_exponents_f (.clk, .reset(1'b0), .enable(go_e[1]), .in(exponents), .out(exponents_f));
  stage #(.WIDTH(E), .REGISTERED(LATENCY >= AT_P))
      stage_exponents_p (.clk, .reset(1'b0), .enable(go_f[1]), .in(exponents_f), .out(exponents_p));
  stage #(.WIDTH(E), .REGISTERED(LATENCY >= AT_G))
      stage_exponents_g (.clk, .reset(1'b0), .enable(go_p[1]), .in(exponents_p), .out(exponents_g));

  for (genvar i = 0; i < VECTORS; i++) begin : vectors
    ppu_vector_scale #(
        .OUT_BITS(OUT_BITS),
        .OUT_SCALE_BITS(OUT_SCALE_BITS),
        .SCALES_UP(SCALES_UP),
        .SIGNED_FRACTION(SIGNED_FRACTION),
        .UNSIGNED_FRACTION(UNSIGNED_FRACTION),
        .WHOLE_REGISTERED(LATENCY >= AT_S)
    ) ppu_vector_scale (
        .clk(clk),
        .enable(go_d[1]),
        .largest(largest_d[i*23+:23]),
        .out_signed(out_signed),
        .scale(scales[i*OUT_SCALE_BITS+:OUT_SCALE_BITS])
    );
    ppu_reciprocal #(
        .OUT_SCALE_BITS(OUT_SCALE_BITS)
    ) ppu_reciprocal (
        .scale(scales_e[i*OUT_SCALE_BITS+:OUT_SCALE_BITS]),
        .reciprocal(reciprocals[i*16+:16]),
        .exponent(exponents[i*4+:4])
    );
  end

  for (genvar lane = 0; lane < LANES; lane++) begin : lanes
    localparam int VECTOR = lane / OWN;
    logic [5:0] shift_g;
    logic [39:0] product;
    logic [OUT_BITS+1:0] shifted, shifted_q;
    logic round_g, round_q;
    assign shift_g = 6'd15 + 6'(exponents_g[VECTOR*4+:4])
        + (out_signed ? 6'(SIGNED_FRACTION) : 6'(UNSIGNED_FRACTION));
    ppu_product #(
        .A_BITS(24),
        .FINE(FINE),
        .ROWS_REGISTERED(LATENCY >= AT_P),
        .SUM_REGISTERED(LATENCY >= AT_G)
    ) ppu_product (
        .clk(clk),
        .rows_enable(go_f[2]),
        .sum_enable(go_p[2]),
        .a(leaving_f[lane*24+:24]),
        .b(reciprocals_f[VECTOR*16+:16]),
        .sum(product)
    );
    ppu_shift #(
        .PRODUCT_BITS(40),
        .OUT_BITS(OUT_BITS + 2)
    ) ppu_shift (
        .product(product),
        .shift(shift_g),
        .value(shifted),
        .round(round_g)
    );
    stage #(.WIDTH(OUT_BITS + 3), .REGISTERED(LATENCY >= AT_Q))
        stage_q (.clk, .reset(1'b0), .enable(go_g[2]), .in({shifted, round_g}), .out({shifted_q, round_q}));
    ppu_quantize #(
        .OUT_BITS(OUT_BITS)
    ) ppu_quantize (
        .value(shifted_q),
        .round(round_q),
        .out_signed(out_signed),
        .code(codes[lane*OUT_BITS+:OUT_BITS])
    );
  end
  assign go_last = {go_q[2], go_q[0]};
  logic unused_first;
  assign unused_first = &{1'b0, go_q[1]};
endmodule
