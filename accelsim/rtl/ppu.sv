`timescale 1ns / 1ps
// ppu: post-processing unit, one collector entry (L psums) a cycle into one FIFO entry (L codes and scales).
// docs/numerics.md (PPU) and docs/timing.md (Drain): an entry read in cycle c is in the FIFO in
// cycle c + LATENCY. Registers lie, as far as LATENCY has them, after: A the collector read, B multiply, C bias
// (z), and per-vector D vector maximum, E scale, F reciprocal, G multiply by it; the last is the FIFO itself.
// A longer latency adds registers before the FIFO. Static natural latency 4, per-vector 8.
module ppu #(
    parameter int VECTOR_SIZE = 16,
    parameter int LANES = 16,
    parameter int DEPTH = 16,
    parameter int ACCUMULATOR_BITS = 24,
    parameter int OUT_BITS = 4,
    parameter int OUT_SCALE_BITS = 4,  // 0: static
    parameter bit SCALES_UP = 1'b1,
    parameter int LATENCY = 8,
    // vectors of an entry; lane groups of a unit, more than 1 where outputs are staged
    parameter int VECTORS = OUT_SCALE_BITS == 0 ? 0 : LANES > VECTOR_SIZE ? LANES / VECTOR_SIZE : 1,
    parameter int GROUPS = OUT_SCALE_BITS > 0 && VECTOR_SIZE > LANES ? VECTOR_SIZE / LANES : 1,
    parameter int ENTRY_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1,
    parameter int GROUP_BITS = $clog2(GROUPS + 1),
    parameter int FIFO_WIDTH = LANES * OUT_BITS + VECTORS * OUT_SCALE_BITS
) (
    input  logic                              clk,
    input  logic                              reset,
    input  logic                              relu,
    input  logic                              out_signed,
    // the drain step of this cycle
    input  logic                              step_valid,
    input  logic                              step_read,         // psums are of this step
    input  logic [            ENTRY_BITS-1:0] step_pixel,
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
    output logic [            FIFO_WIDTH-1:0] entry,             // {scales, code L-1, ..., code 0}
    output logic                              entry_tile_last
);
  localparam int TAG_BITS = ENTRY_BITS + 2 * GROUP_BITS + 3;
  localparam int Z = LANES * 24;

  // Tags beside the values: {valid, read} are reset, the rest is not.
  logic [1:0] go_in, go_a, go_b, go_c;
  logic [TAG_BITS-1:0] tag_in, tag_a, tag_b, tag_c;
  assign go_in = {step_valid, step_valid && step_read};
  assign tag_in = {step_pixel, step_group, step_lane_group, step_group_last, step_output, step_tile_last};

  stage #(.WIDTH(2), .REGISTERED(LATENCY >= 2))
      stage_go_a (.clk, .reset, .enable(1'b1), .in(go_in), .out(go_a));
  stage #(.WIDTH(2), .REGISTERED(LATENCY >= 3))
      stage_go_b (.clk, .reset, .enable(1'b1), .in(go_a), .out(go_b));
  stage #(.WIDTH(2), .REGISTERED(LATENCY >= 4))
      stage_go_c (.clk, .reset, .enable(1'b1), .in(go_b), .out(go_c));
  stage #(.WIDTH(TAG_BITS), .REGISTERED(LATENCY >= 2))
      stage_tag_a (.clk, .reset(1'b0), .enable(go_in[1]), .in(tag_in), .out(tag_a));
  stage #(.WIDTH(TAG_BITS), .REGISTERED(LATENCY >= 3))
      stage_tag_b (.clk, .reset(1'b0), .enable(go_a[1]), .in(tag_a), .out(tag_b));
  stage #(.WIDTH(TAG_BITS), .REGISTERED(LATENCY >= 4))
      stage_tag_c (.clk, .reset(1'b0), .enable(go_b[1]), .in(tag_b), .out(tag_c));

  // Up to z.
  logic [LANES*ACCUMULATOR_BITS-1:0] psums_a;
  logic [LANES*22-1:0] constants_in, constants_a;
  logic [Z-1:0] bias_a, bias_b, scaled, scaled_b, z, z_c;
  assign constants_in = {multiplier, shift};
  stage #(.WIDTH(LANES * ACCUMULATOR_BITS), .REGISTERED(LATENCY >= 2))
      stage_psums_a (.clk, .reset(1'b0), .enable(go_in[0]), .in(psums), .out(psums_a));
  stage #(.WIDTH(LANES * 22), .REGISTERED(LATENCY >= 2))
      stage_constants_a (.clk, .reset(1'b0), .enable(go_in[0]), .in(constants_in), .out(constants_a));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= 2))
      stage_bias_a (.clk, .reset(1'b0), .enable(go_in[0]), .in(bias), .out(bias_a));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= 3))
      stage_bias_b (.clk, .reset(1'b0), .enable(go_a[0]), .in(bias_a), .out(bias_b));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= 3))
      stage_scaled_b (.clk, .reset(1'b0), .enable(go_a[0]), .in(scaled), .out(scaled_b));
  stage #(.WIDTH(Z), .REGISTERED(LATENCY >= 4))
      stage_z_c (.clk, .reset(1'b0), .enable(go_b[0]), .in(z), .out(z_c));

  for (genvar lane = 0; lane < LANES; lane++) begin : lanes
    ppu_multiply #(
        .ACCUMULATOR_BITS(ACCUMULATOR_BITS)
    ) ppu_multiply (
        .psum(psums_a[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]),
        .multiplier(constants_a[LANES*6+lane*16+:16]),
        .shift(constants_a[lane*6+:6]),
        .scaled(scaled[lane*24+:24])
    );
    ppu_bias ppu_bias (
        .scaled(scaled_b[lane*24+:24]),
        .bias(bias_b[lane*24+:24]),
        .relu(relu),
        .z(z[lane*24+:24])
    );
  end

  logic [ENTRY_BITS-1:0] pixel_c;
  logic [GROUP_BITS-1:0] group_c, lane_group_c;
  logic group_last_c, output_c, tile_last_c;
  assign {pixel_c, group_c, lane_group_c, group_last_c, output_c, tile_last_c} = tag_c;

  // Codes.
  localparam int NATURAL = OUT_SCALE_BITS > 0 ? 8 : 4;
  localparam int EXTRA = LATENCY > NATURAL ? LATENCY - NATURAL : 0;
  logic [1:0] go_last;  // {valid and output, last of tile}
  logic [FIFO_WIDTH-1:0] codes;

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
    assign go_last = {go_c[1], tile_last_c};
    logic unused;
    assign unused = &{1'b0, pixel_c, group_c, lane_group_c, group_last_c, output_c, go_c[0]};
  end else begin : vector_scale
    localparam int AMAG_SIGNED = OUT_BITS - 1;
    localparam int ROOM_SIGNED = 23 - AMAG_SIGNED - OUT_SCALE_BITS;
    localparam int ROOM_UNSIGNED = 23 - OUT_BITS - OUT_SCALE_BITS;
    localparam int SIGNED_FRACTION = ROOM_SIGNED < 8 ? ROOM_SIGNED : 8;
    localparam int UNSIGNED_FRACTION = ROOM_UNSIGNED < 8 ? ROOM_UNSIGNED : 8;
    localparam int OWN = LANES / VECTORS;  // lanes of a vector in one entry

    logic [VECTORS*23-1:0] own_largest, largest, largest_d;
    logic [VECTORS*OUT_SCALE_BITS-1:0] scales, scales_e, scales_f, scales_g;
    logic [VECTORS*16-1:0] reciprocals, reciprocals_f;
    logic [VECTORS*4-1:0] exponents, exponents_f, exponents_g;
    logic [Z-1:0] leaving, leaving_d, leaving_e, leaving_f;
    logic [LANES*41-1:0] products, products_g;

    for (genvar i = 0; i < VECTORS; i++) begin : vectors
      ppu_vector_max #(
          .VALUES(OWN)
      ) ppu_vector_max (
          .z(z_c[i*OWN*24+:OWN*24]),
          .largest(own_largest[i*23+:23])
      );
      ppu_vector_scale #(
          .OUT_BITS(OUT_BITS),
          .OUT_SCALE_BITS(OUT_SCALE_BITS),
          .SCALES_UP(SCALES_UP),
          .SIGNED_FRACTION(SIGNED_FRACTION),
          .UNSIGNED_FRACTION(UNSIGNED_FRACTION)
      ) ppu_vector_scale (
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

    if (GROUPS > 1) begin : staged
      logic [Z-1:0] staged_values;
      logic [22:0] largest_before;
      ppu_staging #(
          .DEPTH (DEPTH),
          .GROUPS(GROUPS),
          .LANES (LANES)
      ) ppu_staging (
          .clk(clk),
          .write(go_c[1] && !output_c),
          .pixel(pixel_c),
          .write_group(lane_group_c),
          .write_values(z_c),
          .write_largest(largest),
          .read_group(group_c),
          .read_values(staged_values),
          .read_largest(largest_before)
      );
      assign largest = (lane_group_c != '0 && largest_before > own_largest) ? largest_before : own_largest;
      assign leaving = group_last_c ? z_c : staged_values;
    end else begin : whole
      assign largest = own_largest;
      assign leaving = z_c;
      logic unused;
      assign unused = &{1'b0, pixel_c, group_c, lane_group_c, group_last_c};
    end

    // {output, first of its pixel, last of tile}
    logic [2:0] go_out, go_d, go_e, go_f, go_g;
    assign go_out = {go_c[1] && output_c, go_c[0] && output_c, tile_last_c};
    stage #(.WIDTH(3), .REGISTERED(LATENCY >= 5))
        stage_go_d (.clk, .reset, .enable(1'b1), .in(go_out), .out(go_d));
    stage #(.WIDTH(3), .REGISTERED(LATENCY >= 6))
        stage_go_e (.clk, .reset, .enable(1'b1), .in(go_d), .out(go_e));
    stage #(.WIDTH(3), .REGISTERED(LATENCY >= 7))
        stage_go_f (.clk, .reset, .enable(1'b1), .in(go_e), .out(go_f));
    stage #(.WIDTH(3), .REGISTERED(LATENCY >= 8))
        stage_go_g (.clk, .reset, .enable(1'b1), .in(go_f), .out(go_g));
    stage #(.WIDTH(VECTORS * 23), .REGISTERED(LATENCY >= 5))
        stage_largest_d (.clk, .reset(1'b0), .enable(go_out[1]), .in(largest), .out(largest_d));
    stage #(.WIDTH(VECTORS * OUT_SCALE_BITS), .REGISTERED(LATENCY >= 6))
        stage_scales_e (.clk, .reset(1'b0), .enable(go_d[1]), .in(scales), .out(scales_e));
    stage #(.WIDTH(VECTORS * OUT_SCALE_BITS), .REGISTERED(LATENCY >= 7))
        stage_scales_f (.clk, .reset(1'b0), .enable(go_e[1]), .in(scales_e), .out(scales_f));
    stage #(.WIDTH(VECTORS * OUT_SCALE_BITS), .REGISTERED(LATENCY >= 8))
        stage_scales_g (.clk, .reset(1'b0), .enable(go_f[1]), .in(scales_f), .out(scales_g));
    stage #(.WIDTH(VECTORS * 16), .REGISTERED(LATENCY >= 7))
        stage_reciprocals_f (.clk, .reset(1'b0), .enable(go_e[1]), .in(reciprocals), .out(reciprocals_f));
    stage #(.WIDTH(VECTORS * 4), .REGISTERED(LATENCY >= 7))
        stage_exponents_f (.clk, .reset(1'b0), .enable(go_e[1]), .in(exponents), .out(exponents_f));
    stage #(.WIDTH(VECTORS * 4), .REGISTERED(LATENCY >= 8))
        stage_exponents_g (.clk, .reset(1'b0), .enable(go_f[1]), .in(exponents_f), .out(exponents_g));
    stage #(.WIDTH(Z), .REGISTERED(LATENCY >= 5))
        stage_leaving_d (.clk, .reset(1'b0), .enable(go_out[2]), .in(leaving), .out(leaving_d));
    stage #(.WIDTH(Z), .REGISTERED(LATENCY >= 6))
        stage_leaving_e (.clk, .reset(1'b0), .enable(go_d[2]), .in(leaving_d), .out(leaving_e));
    stage #(.WIDTH(Z), .REGISTERED(LATENCY >= 7))
        stage_leaving_f (.clk, .reset(1'b0), .enable(go_e[2]), .in(leaving_e), .out(leaving_f));
    stage #(.WIDTH(LANES * 41), .REGISTERED(LATENCY >= 8))
        stage_products_g (.clk, .reset(1'b0), .enable(go_f[2]), .in(products), .out(products_g));

    for (genvar lane = 0; lane < LANES; lane++) begin : lanes
      localparam int VECTOR = lane / OWN;
      logic signed [23:0] value;
      assign value = leaving_f[lane*24+:24];
      assign products[lane*41+:41] = 41'(value) * $signed(41'(reciprocals_f[VECTOR*16+:16]));
      ppu_quantize #(
          .OUT_BITS(OUT_BITS),
          .SIGNED_FRACTION(SIGNED_FRACTION),
          .UNSIGNED_FRACTION(UNSIGNED_FRACTION)
      ) ppu_quantize (
          .product(products_g[lane*41+:41]),
          .exponent(exponents_g[VECTOR*4+:4]),
          .out_signed(out_signed),
          .code(codes[lane*OUT_BITS+:OUT_BITS])
      );
    end
    assign codes[FIFO_WIDTH-1:LANES*OUT_BITS] = scales_g;
    assign go_last = {go_g[2], go_g[0]};
    logic unused_first;
    assign unused_first = &{1'b0, go_g[1]};
  end

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
      .WIDTH (FIFO_WIDTH + 1),
      .CYCLES(EXTRA)
  ) entry_delay (
      .clk(clk),
      .in ({go_last[0], codes}),
      .out({entry_tile_last, entry})
  );
endmodule
