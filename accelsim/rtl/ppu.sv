`timescale 1ns / 1ps
// ppu: post-processing unit, one slice of a collector entry (PPU_LANES of its L psums) a cycle into one slice of a
// FIFO entry (their codes and scales).
// docs/numerics.md (PPU) and docs/timing.md (Drain): a slice read in cycle c is in the FIFO in cycle
// c + LATENCY, with scales LATENCY + SPREAD - 1, as values wait until the last of their vector's slices has come.
// Registers lie, as far as LATENCY has them, after: A the collector read, B multiply, C bias (z), with scales those of
// ppu_vector_codes or ppu_block_codes; the last is the FIFO itself. FINE adds more: after the partial products (M) and the
// sum (N) of the multiply, the maximum of pairs (X) and of a slice (Y). A longer latency adds registers before the
// FIFO. Natural latency: static 4, FINE 6; integers with scales 8, FINE 15; block formats 8, FINE 13.
module ppu #(
    parameter int BLOCK = 16,        // outputs that share a scale
    parameter int ENTRY_LANES = 16,  // L
    parameter int LANES = 16,        // of a slice
    parameter int DEPTH = 16,
    parameter int ACCUMULATOR_BITS = 24,
    parameter int OUT_BITS = 4,
    parameter int OUT_EXPONENT_BITS = 0,  // of the element, in block formats; 0: integers
    parameter int OUT_SCALE_BITS = 4,  // 0: static
    parameter int OUT_KIND = 0,  // of scales: 0 integers or none, 1 e8m0, 2 e4m3
    parameter bit SCALES_UP = 1'b1,
    parameter bit FINE = 1'b0,
    parameter int LATENCY = 8,
    // blocks (vectors) of a slice; slices of an entry, and of an entry's vector; lane groups of a unit, more than 1 where
    // outputs are staged
    parameter int VECTORS = LANES > BLOCK ? LANES / BLOCK : 1,
    parameter int SLICES = ENTRY_LANES / LANES,
    parameter int SPREAD = LANES > BLOCK ? 1 : (BLOCK < ENTRY_LANES ? BLOCK : ENTRY_LANES) / LANES,
    parameter int GROUPS = OUT_SCALE_BITS > 0 && BLOCK > ENTRY_LANES ? BLOCK / ENTRY_LANES : 1,
    parameter int ENTRY_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1,
    parameter int GROUP_BITS = $clog2(GROUPS + 1),
    parameter int SLICE_BITS = SLICES > 1 ? $clog2(SLICES) : 1,
    parameter int SCALES_WIDTH = OUT_SCALE_BITS > 0 ? VECTORS * OUT_SCALE_BITS : 1
) (
    input  logic                              clk,
    input  logic                              reset,
    input  logic                              relu,
    input  logic                              out_signed,
    input  logic signed [               11:0] out_exponent,      // ppu_block_scale's
    // the drain step of this cycle
    input  logic                              step_valid,
    input  logic                              step_read,         // psums are of this step
    input  logic [            ENTRY_BITS-1:0] step_pixel,
    input  logic [            SLICE_BITS-1:0] step_slice,
    input  logic [            GROUP_BITS-1:0] step_group,        // lane group whose values leave
    input  logic                              step_group_last,
    input  logic                              step_output,
    input  logic                              step_tile_last,
    input  logic [            GROUP_BITS-1:0] step_lane_group,   // lane group of the psums in its unit
    input  logic [LANES*ACCUMULATOR_BITS-1:0] psums,
    input  logic [              LANES*16-1:0] multiplier,        // constants of the psums' channels
    input  logic [               LANES*6-1:0] shift,
    input  logic [              LANES*24-1:0] bias,
    output logic                              entry_valid,
    output logic [            SLICE_BITS-1:0] entry_slice,
    output logic [        LANES*OUT_BITS-1:0] entry_codes,
    output logic [          SCALES_WIDTH-1:0] entry_scales,      // of the slice's vectors
    output logic                              entry_tile_last
);
  localparam int TAG_BITS = ENTRY_BITS + SLICE_BITS + 2 * GROUP_BITS + 3;
  localparam int Z = LANES * 24;
  localparam int PRODUCT_BITS = ACCUMULATOR_BITS + 16;
  // Least latency with each register.
  localparam int NEVER = 1 << 20;
  localparam int AT_A = 2;
  localparam int AT_M = FINE ? 3 : NEVER;
  localparam int AT_N = FINE ? 4 : NEVER;
  localparam int AT_B = FINE ? 5 : 3;
  localparam int AT_C = FINE ? 6 : 4;
  localparam int AT_X = FINE && OUT_SCALE_BITS > 0 ? 7 : NEVER;
  localparam int AT_Y = FINE && OUT_SCALE_BITS > 0 ? 8 : NEVER;
  localparam int NATURAL = OUT_SCALE_BITS == 0 ? AT_C : !FINE ? 8 : OUT_KIND == 0 ? 15 : 13;
  localparam int EXTRA = LATENCY > NATURAL ? LATENCY - NATURAL : 0;

  // Tags beside the values: {valid, read} are reset, the rest is not.
  logic [1:0] go_in, go_a, go_m, go_n, go_b, go_c;
  logic [TAG_BITS-1:0] tag_in, tag_a, tag_m, tag_n, tag_b, tag_c;
  assign go_in = {step_valid, step_valid && step_read};
  assign tag_in = {
    step_pixel, step_slice, step_group, step_lane_group, step_group_last, step_output, step_tile_last
  };

  stage #(.WIDTH(2), .REGISTERED(LATENCY >= AT_A))
      stage_go_a (.clk, .reset, .enable(1'b1), .in(go_in), .out(go_a));
  stage #(.WIDTH(2), .REGISTERED(LATENCY >= AT_M))
      stage_go_m (.clk, .reset, .enable(1'b1), .in(go_a), .out(go_m));
  stage #(.WIDTH(2), .REGISTERED(LATENCY >= AT_N))
      stage_go_n (.clk, .reset, .enable(1'b1), .in(go_m), .out(go_n));
  stage #(.WIDTH(2), .REGISTERED(LATENCY >= AT_B))
      stage_go_b (.clk, .reset, .enable(1'b1), .in(go_n), .out(go_b));
  stage #(.WIDTH(2), .REGISTERED(LATENCY >= AT_C))
      stage_go_c (.clk, .reset, .enable(1'b1), .in(go_b), .out(go_c));
  stage #(.WIDTH(TAG_BITS), .REGISTERED(LATENCY >= AT_A))
      stage_tag_a (.clk, .reset(1'b0), .enable(go_in[1]), .in(tag_in), .out(tag_a));
  stage #(.WIDTH(TAG_BITS), .REGISTERED(LATENCY >= AT_M))
      stage_tag_m (.clk, .reset(1'b0), .enable(go_a[1]), .in(tag_a), .out(tag_m));
  stage #(.WIDTH(TAG_BITS), .REGISTERED(LATENCY >= AT_N))
      stage_tag_n (.clk, .reset(1'b0), .enable(go_m[1]), .in(tag_m), .out(tag_n));
  stage #(.WIDTH(TAG_BITS), .REGISTERED(LATENCY >= AT_B))
      stage_tag_b (.clk, .reset(1'b0), .enable(go_n[1]), .in(tag_n), .out(tag_b));
  stage #(.WIDTH(TAG_BITS), .REGISTERED(LATENCY >= AT_C))
      stage_tag_c (.clk, .reset(1'b0), .enable(go_b[1]), .in(tag_b), .out(tag_c));

  // Up to z.
  logic [LANES*ACCUMULATOR_BITS-1:0] psums_a;
  logic [LANES*16-1:0] multiplier_a;
  logic [LANES*6-1:0] shift_a, shift_m, shift_n;
  logic [Z-1:0] bias_a, bias_m, bias_n, bias_b, scaled, scaled_b, z, z_c;
  logic [LANES-1:0] round, round_b;
  stage #(.WIDTH(LANES * ACCUMULATOR_BITS), .REGISTERED(LATENCY >= AT_A))
      stage_psums_a (.clk, .reset(1'b0), .enable(go_in[0]), .in(psums), .out(psums_a));
  stage #(.WIDTH(LANES * 16), .REGISTERED(LATENCY >= AT_A))
      stage_multiplier_a (.clk, .reset(1'b0), .enable(go_in[0]), .in(multiplier), .out(multiplier_a));
  stage #(.WIDTH(LANES * 6), .REGISTERED(LATENCY >= AT_A))
      stage_shift_a (.clk, .reset(1'b0), .enable(go_in[0]), .in(shift), .out(shift_a));
  stage #(.WIDTH(LANES * 6), .REGISTERED(LATENCY >= AT_M))
      stage_shift_m (.clk, .reset(1'b0), .enable(go_a[0]), .in(shift_a), .out(shift_m));
  stage #(.WIDTH(LANES * 6), .REGISTERED(LATENCY >= AT_N))
      stage_shift_n (.clk, .reset(1'b0), .enable(go_m[0]), .in(shift_m), .out(shift_n));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_A))
      stage_bias_a (.clk, .reset(1'b0), .enable(go_in[0]), .in(bias), .out(bias_a));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_M))
      stage_bias_m (.clk, .reset(1'b0), .enable(go_a[0]), .in(bias_a), .out(bias_m));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_N))
      stage_bias_n (.clk, .reset(1'b0), .enable(go_m[0]), .in(bias_m), .out(bias_n));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_B))
      stage_bias_b (.clk, .reset(1'b0), .enable(go_n[0]), .in(bias_n), .out(bias_b));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_B))
      stage_scaled_b (.clk, .reset(1'b0), .enable(go_n[0]), .in(scaled), .out(scaled_b));
  stage #(.WIDTH(LANES), .REGISTERED(LATENCY >= AT_B))
      stage_round_b (.clk, .reset(1'b0), .enable(go_n[0]), .in(round), .out(round_b));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_C))
      stage_z_c (.clk, .reset(1'b0), .enable(go_b[0]), .in(z), .out(z_c));

  for (genvar lane = 0; lane < LANES; lane++) begin : lanes
    logic [PRODUCT_BITS-1:0] product;
    ppu_product #(
        .A_BITS(ACCUMULATOR_BITS),
        .FINE(FINE),
        .ROWS_REGISTERED(LATENCY >= AT_M),
        .SUM_REGISTERED(LATENCY >= AT_N)
    ) ppu_product (
        .clk(clk),
        .rows_enable(go_a[0]),
        .sum_enable(go_m[0]),
        .a(psums_a[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]),
        .b(multiplier_a[lane*16+:16]),
        .sum(product)
    );
    ppu_shift #(
        .PRODUCT_BITS(PRODUCT_BITS)
    ) ppu_shift (
        .product(product),
        .shift(shift_n[lane*6+:6]),
        .value(scaled[lane*24+:24]),
        .round(round[lane])
    );
    ppu_bias ppu_bias (
        .scaled(scaled_b[lane*24+:24]),
        .round(round_b[lane]),
        .bias(bias_b[lane*24+:24]),
        .relu(relu),
        .z(z[lane*24+:24])
    );
  end

  // Codes.
  localparam int OUT_WIDTH = LANES * OUT_BITS + SCALES_WIDTH;
  logic [1:0] go_last;  // {valid and output, last of tile}
  logic [SLICE_BITS-1:0] slice_last;
  logic [LANES*OUT_BITS-1:0] codes;
  logic [SCALES_WIDTH-1:0] scales_last;

  if (OUT_SCALE_BITS == 0) begin : static_scale
    for (genvar lane = 0; lane < LANES; lane++) begin : lanes
      ppu_static #(
          .OUT_BITS(OUT_BITS)
      ) ppu_static (
          .z(z_c[lane*24+:24]),
          .out_signed(out_signed),
          .code(codes[lane*OUT_BITS+:OUT_BITS])
      );
    end
    assign go_last = {go_c[1], tag_c[0]};
    assign slice_last = tag_c[TAG_BITS-ENTRY_BITS-1-:SLICE_BITS];
    assign scales_last = '0;
    logic unused;
    assign unused = &{1'b0, tag_c, go_c[0]};
  end else begin : vector_scale
    localparam int OWN = LANES / VECTORS;  // lanes of a vector in one slice
    localparam int PAIRS = (OWN + 1) / 2;

    logic [1:0] go_x, go_y;
    logic [TAG_BITS-1:0] tag_x, tag_y;
    logic [Z-1:0] z_x, z_y, leaving;
    logic [LANES*23-1:0] magnitudes;
    logic [VECTORS*PAIRS*23-1:0] pairs, pairs_x;
    logic [VECTORS*23-1:0] own_largest, own_largest_y, largest;
    logic [2:0] go_out;  // {output, first of its vector, last of tile}
    logic [SLICE_BITS-1:0] slice_leave;

    stage #(.WIDTH(2), .REGISTERED(LATENCY >= AT_X))
        stage_go_x (.clk, .reset, .enable(1'b1), .in(go_c), .out(go_x));
    stage #(.WIDTH(2), .REGISTERED(LATENCY >= AT_Y))
        stage_go_y (.clk, .reset, .enable(1'b1), .in(go_x), .out(go_y));
    stage #(.WIDTH(TAG_BITS), .REGISTERED(LATENCY >= AT_X))
        stage_tag_x (.clk, .reset(1'b0), .enable(go_c[1]), .in(tag_c), .out(tag_x));
    stage #(.WIDTH(TAG_BITS), .REGISTERED(LATENCY >= AT_Y))
        stage_tag_y (.clk, .reset(1'b0), .enable(go_x[1]), .in(tag_x), .out(tag_y));
    stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_X))
        stage_z_x (.clk, .reset(1'b0), .enable(go_c[0]), .in(z_c), .out(z_x));
    stage #(.WIDTH(Z), .REGISTERED(LATENCY >= AT_Y))
        stage_z_y (.clk, .reset(1'b0), .enable(go_x[0]), .in(z_x), .out(z_y));
    stage #(.WIDTH(VECTORS * PAIRS * 23), .REGISTERED(LATENCY >= AT_X))
        stage_pairs_x (.clk, .reset(1'b0), .enable(go_c[0]), .in(pairs), .out(pairs_x));
    stage #(.WIDTH(VECTORS * 23), .REGISTERED(LATENCY >= AT_Y))
        stage_own_largest_y (.clk, .reset(1'b0), .enable(go_x[0]), .in(own_largest), .out(own_largest_y));

    for (genvar lane = 0; lane < LANES; lane++) begin : lanes
      ppu_magnitude ppu_magnitude (
          .z(z_c[lane*24+:24]),
          .magnitude(magnitudes[lane*23+:23])
      );
    end
    for (genvar i = 0; i < VECTORS; i++) begin : vectors
      for (genvar p = 0; p < PAIRS; p++) begin : pair
        localparam int VALUES = OWN - 2 * p < 2 ? 1 : 2;
        ppu_vector_max #(
            .VALUES(VALUES)
        ) ppu_vector_max (
            .magnitudes(magnitudes[(i*OWN+2*p)*23+:VALUES*23]),
            .largest(pairs[(i*PAIRS+p)*23+:23])
        );
      end
      ppu_vector_max #(
          .VALUES(PAIRS)
      ) ppu_vector_max (
          .magnitudes(pairs_x[i*PAIRS*23+:PAIRS*23]),
          .largest(own_largest[i*23+:23])
      );
    end

    ppu_gather #(
        .DEPTH(DEPTH),
        .LANES(LANES),
        .VECTORS(VECTORS),
        .SLICES(SLICES),
        .SPREAD(SPREAD),
        .GROUPS(GROUPS)
    ) ppu_gather (
        .clk(clk),
        .reset(reset),
        .go_in(go_y),
        .tag_in(tag_y),
        .z_in(z_y),
        .own_largest(own_largest_y),
        .go_out(go_out),
        .slice_leave(slice_leave),
        .leaving(leaving),
        .largest(largest)
    );

    if (OUT_KIND == 0) begin : integers
      ppu_vector_codes #(
          .LANES(LANES),
          .VECTORS(VECTORS),
          .OUT_BITS(OUT_BITS),
          .OUT_SCALE_BITS(OUT_SCALE_BITS),
          .SCALES_UP(SCALES_UP),
          .FINE(FINE),
          .LATENCY(LATENCY),
          .SLICE_BITS(SLICE_BITS)
      ) ppu_vector_codes (
          .clk(clk),
          .reset(reset),
          .out_signed(out_signed),
          .go_out(go_out),
          .slice_leave(slice_leave),
          .leaving(leaving),
          .largest(largest),
          .go_last(go_last),
          .slice_last(slice_last),
          .codes(codes),
          .scales_last(scales_last)
      );
    end else begin : blocks
      ppu_block_codes #(
          .LANES(LANES),
          .VECTORS(VECTORS),
          .OUT_BITS(OUT_BITS),
          .EXPONENT_BITS(OUT_EXPONENT_BITS),
          .SCALE_KIND(OUT_KIND),
          .FINE(FINE),
          .LATENCY(LATENCY),
          .SLICE_BITS(SLICE_BITS)
      ) ppu_block_codes (
          .clk(clk),
          .reset(reset),
          .out_exponent(out_exponent),
          .go_out(go_out),
          .slice_leave(slice_leave),
          .leaving(leaving),
          .largest(largest),
          .go_last(go_last),
          .slice_last(slice_last),
          .codes(codes),
          .scales_last(scales_last)
      );
    end
  end

  logic unused_modes;  // which of them is read depends on the format
  assign unused_modes = &{1'b0, out_signed, out_exponent};

  // Registers of a longer latency.
  if (EXTRA == 0) begin : natural
    assign entry_valid = go_last[1];
  end else begin : longer
    logic [EXTRA-1:0] valid_line;
    always_ff @(posedge clk) begin
      valid_line <= reset ? '0 : EXTRA'({valid_line, go_last[1]});
    end
    assign entry_valid = valid_line[EXTRA-1];
  end
  delay #(
      .WIDTH (OUT_WIDTH + SLICE_BITS + 1),
      .CYCLES(EXTRA)
  ) entry_delay (
      .clk(clk),
      .in ({go_last[0], slice_last, scales_last, codes}),
      .out({entry_tile_last, entry_slice, entry_scales, entry_codes})
  );
endmodule
