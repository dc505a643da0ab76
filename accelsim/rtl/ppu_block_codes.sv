`timescale 1ns / 1ps
// ppu_block_codes: codes and scales of a slice in a block format (e8m0 or e4m3 scales), once the largest |z| of its
// blocks is known.
// docs/numerics.md (Block formats, Output). Registers lie after: D the maximum, S (FINE) its exponent, E the scale, F the
// shift amount, G the shift. Natural latency 8, FINE 13.
module ppu_block_codes #(
    parameter int LANES = 16,
    parameter int VECTORS = 1,
    parameter int OUT_BITS = 4,
    parameter int EXPONENT_BITS = 2,  // of the element; 0: integers
    parameter int SCALE_KIND = 1,  // 1 e8m0, 2 e4m3
    parameter bit FINE = 1'b0,
    parameter int LATENCY = 8,
    parameter int SLICE_BITS = 1
) (
    input  logic                             clk,
    input  logic                             reset,
    input  logic signed [              11:0] out_exponent,
    input  logic        [               2:0] go_out,       // ppu_gather's
    input  logic        [    SLICE_BITS-1:0] slice_leave,
    input  logic        [      LANES*24-1:0] leaving,
    input  logic        [    VECTORS*23-1:0] largest,
    output logic        [               1:0] go_last,      // {a slice, the last of the tile}
    output logic        [    SLICE_BITS-1:0] slice_last,
    output logic        [LANES*OUT_BITS-1:0] codes,
    output logic        [     VECTORS*8-1:0] scales_last
);
  localparam int NEVER = 1 << 20;
  localparam int AT_D = FINE ? 9 : 5;
  localparam int AT_S = FINE ? 10 : NEVER;
  localparam int AT_E = FINE ? 11 : 6;
  localparam int AT_F = FINE ? 12 : 7;
  localparam int AT_G = FINE ? 13 : 8;
  localparam int OWN = LANES / VECTORS;
  localparam int Z = LANES * 24;
  localparam int S = VECTORS * 8;
  // The element's largest power of two is bit TOP of a value in its lsb; of e4m3 scales a value and what it is compared
  // with have 9 bits.
  localparam int TOP = EXPONENT_BITS > 0 ? OUT_BITS - 1 - EXPONENT_BITS + (1 << EXPONENT_BITS) - 2 : OUT_BITS - 2;
  localparam int WHOLE = SCALE_KIND == 1 ? TOP + 1 : 9;
  localparam int MOST = WHOLE + 24;  // a shift that leaves less than half
  localparam int AMOUNT_BITS = $clog2(MOST + 1);
  localparam int SHIFTED = LANES * (WHOLE + 4);

  // {output, first of its block, last of tile}
  logic [2:0] go_d, go_s, go_e, go_f, go_g;
  logic [SLICE_BITS-1:0] slice_d, slice_s, slice_e, slice_f;
  logic [Z-1:0] leaving_d, leaving_s, leaving_e, leaving_f;
  logic [VECTORS*23-1:0] largest_d;
  logic [S-1:0] scales, scales_e, scales_f;
  logic [VECTORS*AMOUNT_BITS-1:0] amounts, amounts_f;
  logic [SHIFTED-1:0] shifted, shifted_g;
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_D))
      stage_go_d (.clk, .reset, .enable(1'b1), .in(go_out), .out(go_d));
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_S))
      stage_go_s (.clk, .reset, .enable(1'b1), .in(go_d), .out(go_s));
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_E))
      stage_go_e (.clk, .reset, .enable(1'b1), .in(go_s), .out(go_e));
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_F))
      stage_go_f (.clk, .reset, .enable(1'b1), .in(go_e), .out(go_f));
  stage #(.WIDTH(3), .REGISTERED(LATENCY >= AT_G))
      stage_go_g (.clk, .reset, .enable(1'b1), .in(go_f), .out(go_g));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_D))
      stage_slice_d (.clk, .reset(1'b0), .enable(go_out[2]), .in(slice_leave), .out(slice_d));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_S))
      stage_slice_s (.clk, .reset(1'b0), .enable(go_d[2]), .in(slice_d), .out(slice_s));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_E))
      stage_slice_e (.clk, .reset(1'b0), .enable(go_s[2]), .in(slice_s), .out(slice_e));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_F))
      stage_slice_f (.clk, .reset(1'b0), .enable(go_e[2]), .in(slice_e), .out(slice_f));
  stage #(.WIDTH(SLICE_BITS), .REGISTERED(LATENCY >= AT_G))
      stage_slice_g (.clk, .reset(1'b0), .enable(go_f[2]), .in(slice_f), .out(slice_last));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_D))
      stage_leaving_d (.clk, .reset(1'b0), .enable(go_out[2]), .in(leaving), .out(leaving_d));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_S))
      stage_leaving_s (.clk, .reset(1'b0), .enable(go_d[2]), .in(leaving_d), .out(leaving_s));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_E))
      stage_leaving_e (.clk, .reset(1'b0), .enable(go_s[2]), .in(leaving_s), .out(leaving_e));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_F))
      stage_leaving_f (.clk, .reset(1'b0), .enable(go_e[2]), .in(leaving_e), .out(leaving_f));
  stage #(.WIDTH(VECTORS * 23), .REGISTERED(LATENCY >= AT_D))
      stage_largest_d (.clk, .reset(1'b0), .enable(go_out[1]), .in(largest), .out(largest_d));
  stage #(.WIDTH(S), .REGISTERED(LATENCY >= AT_E))
      stage_scales_e (.clk, .reset(1'b0), .enable(go_s[1]), .in(scales), .out(scales_e));
  stage #(.WIDTH(S), .REGISTERED(LATENCY >= AT_F))
      stage_scales_f (.clk, .reset(1'b0), .enable(go_e[1]), .in(scales_e), .out(scales_f));
  stage #(.WIDTH(S), .REGISTERED(LATENCY >= AT_G))
      stage_scales_g (.clk, .reset(1'b0), .enable(go_f[1]), .in(scales_f), .out(scales_last));
  stage #(.WIDTH(VECTORS * AMOUNT_BITS), .REGISTERED(LATENCY >= AT_F))
      stage_amounts_f (.clk, .reset(1'b0), .enable(go_e[1]), .in(amounts), .out(amounts_f));
  stage #(.WIDTH(SHIFTED), .REGISTERED(LATENCY >= AT_G))
      stage_shifted_g (.clk, .reset(1'b0), .enable(go_f[2]), .in(shifted), .out(shifted_g));

  for (genvar i = 0; i < VECTORS; i++) begin : vectors
    ppu_block_scale #(
        .SCALE_KIND(SCALE_KIND),
        .EXPONENT_REGISTERED(LATENCY >= AT_S)
    ) ppu_block_scale (
        .clk(clk),
        .enable(go_d[1]),
        .largest(largest_d[i*23+:23]),
        .out_exponent(out_exponent),
        .scale(scales[i*8+:8])
    );
    // From a value that is WHOLE bits too large.
    if (SCALE_KIND == 1) begin : powers
      logic signed [12:0] amount;
      assign amount = $signed({5'b0, scales_e[i*8+:8]}) - 13'(out_exponent) + 13'sd1;
      assign amounts[i*AMOUNT_BITS+:AMOUNT_BITS] = amount < 0 ? '0
          : amount > 13'(MOST) ? AMOUNT_BITS'(MOST) : amount[AMOUNT_BITS-1:0];
    end else begin : floats
      logic [3:0] field, exponent;
      assign field = scales_e[i*8+3+:4];
      assign exponent = field == '0 ? '0 : field - 1'b1;
      assign amounts[i*AMOUNT_BITS+:AMOUNT_BITS] = AMOUNT_BITS'(exponent) + AMOUNT_BITS'(WHOLE);
    end
  end

  for (genvar lane = 0; lane < LANES; lane++) begin : lanes
    localparam int VECTOR = lane / OWN;
    ppu_block_shift #(
        .WHOLE(WHOLE),
        .AMOUNT_BITS(AMOUNT_BITS)
    ) ppu_block_shift (
        .z(leaving_f[lane*24+:24]),
        .amount(amounts_f[VECTOR*AMOUNT_BITS+:AMOUNT_BITS]),
        .shifted(shifted[lane*(WHOLE+4)+:WHOLE+4])
    );
    ppu_block_quantize #(
        .SCALE_KIND(SCALE_KIND),
        .OUT_BITS(OUT_BITS),
        .EXPONENT_BITS(EXPONENT_BITS),
        .WHOLE(WHOLE)
    ) ppu_block_quantize (
        .shifted(shifted_g[lane*(WHOLE+4)+:WHOLE+4]),
        .significand({scales_last[VECTOR*8+3+:4] != '0, scales_last[VECTOR*8+:3]}),
        .code(codes[lane*OUT_BITS+:OUT_BITS])
    );
  end
  assign go_last = {go_g[2], go_g[0]};
  logic unused;
  assign unused = &{1'b0, go_g[1]};
endmodule
