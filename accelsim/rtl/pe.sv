`timescale 1ns / 1ps
// pe: one processing element.
// docs/machine.md (parts), docs/timing.md (Issue, Drain) and docs/numerics.md (arithmetic).
// Outside it: the program (blocks), the address generator that turns (vector, pixel) of a step into an
// address of the input half or into padding, the PPU constants of the lane group that drains, and the transfers
// that fill the buffer halves and empty the FIFO.
module pe #(
    parameter int VECTOR_SIZE = 16,
    parameter int BLOCKS = 1,  // with a scale each, in a word
    parameter int LANES = 16,
    parameter int DEPTH = 16,  // accumulation_collector_depth
    parameter int WEIGHT_HALF_WORDS = 128,
    parameter int INPUT_HALF_WORDS = 512,
    parameter int FIFO_WORDS = 32,
    parameter int WEIGHT_BITS = 4,
    parameter int WEIGHT_EXPONENT_BITS = 0,  // of its element; 0: integers
    parameter int ACTIVATION_BITS = 4,
    parameter int ACTIVATION_EXPONENT_BITS = 0,
    parameter int ACTIVATION_SIGN = 2,  // 0 unsigned, 1 signed, 2 both
    parameter int WEIGHT_SCALE_BITS = 4,
    parameter int ACTIVATION_SCALE_BITS = 4,
    parameter int SCALE_KIND = 0,  // 0 integers or none, 1 e8m0, 2 e4m3
    parameter int SCALE_BITS = WEIGHT_SCALE_BITS + ACTIVATION_SCALE_BITS,  // of what multiplies: N of :spN, 8 of e4m3; or 0
    parameter int PRODUCT_SHIFT = 0,
    parameter int ACCUMULATOR_BITS = 24,
    parameter bit SATURATE = 1'b1,
    parameter bit ALIGN_NEAREST = 1'b1,  // of block formats; 0: down
    parameter int ACCUMULATE_LATENCY = 2,
    parameter int GATING = 0,  // gate_on_scale_product: 0 none, 1 multiply, 2 dot
    parameter int DOT_STAGES = 1,
    parameter int SCALE_STAGES = 1,  // only with scales
    parameter int OUT_BITS = 4,
    parameter int OUT_EXPONENT_BITS = 0,  // of the element; 0: integers
    parameter int OUT_SCALE_BITS = 4,
    parameter int OUT_KIND = 0,  // as SCALE_KIND
    parameter int OUT_BLOCK = 16,  // outputs that share a scale
    parameter bit SCALES_UP = 1'b1,  // 0: to nearest
    parameter int PPU_LANES = 16,
    parameter bit PPU_FINE = 1'b0,  // finer stages in the PPU
    parameter int PPU_LATENCY = 8,
    // derived
    parameter int WEIGHT_WORD_BITS = VECTOR_SIZE * WEIGHT_BITS + BLOCKS * WEIGHT_SCALE_BITS,
    parameter int INPUT_WORD_BITS = VECTOR_SIZE * ACTIVATION_BITS + BLOCKS * ACTIVATION_SCALE_BITS,
    parameter int WEIGHT_ADDRESS_BITS = WEIGHT_HALF_WORDS > 1 ? $clog2(WEIGHT_HALF_WORDS) : 1,
    parameter int INPUT_ADDRESS_BITS = INPUT_HALF_WORDS > 1 ? $clog2(INPUT_HALF_WORDS) : 1,
    parameter int COUNT_BITS = $clog2(DEPTH + 1),
    parameter int ENTRY_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1,
    parameter int VECTORS = OUT_SCALE_BITS == 0 ? 0 : LANES > OUT_BLOCK ? LANES / OUT_BLOCK : 1,
    parameter int GROUPS = OUT_SCALE_BITS > 0 && OUT_BLOCK > LANES ? OUT_BLOCK / LANES : 1,
    parameter int GROUP_BITS = $clog2(GROUPS + 1),
    parameter int LENGTH_BITS = $clog2(DEPTH * GROUPS + 1),
    parameter int SLICES = LANES / PPU_LANES,
    parameter int SLICE_BITS = SLICES > 1 ? $clog2(SLICES) : 1,
    parameter int FIFO_WIDTH = LANES * OUT_BITS + VECTORS * OUT_SCALE_BITS
) (
    input  logic                              clk,
    input  logic                              reset,
    // constant through a layer
    input  logic                              input_signed,
    input  logic                              out_signed,
    input  logic                              relu,
    input  logic signed [               11:0] align_constant,       // scale_sum's, of block formats
    input  logic signed [               11:0] out_exponent,         // ppu_block_scale's
    // filling the operand buffers; `fill_done` in the cycle before the tile is resident
    input  logic                              weight_write,
    input  logic                              weight_write_half,
    input  logic [   WEIGHT_ADDRESS_BITS-1:0] weight_write_address,
    input  logic [LANES*WEIGHT_WORD_BITS-1:0] weight_write_data,
    input  logic                              weight_fill_done,
    input  logic                              weight_fill_half,
    output logic                              weight_release,       // the half may be filled from the next cycle
    output logic                              weight_release_half,
    input  logic                              input_write,
    input  logic                              input_write_half,
    input  logic [    INPUT_ADDRESS_BITS-1:0] input_write_address,
    input  logic [       INPUT_WORD_BITS-1:0] input_write_data,
    input  logic                              input_fill_done,
    input  logic                              input_fill_half,
    output logic                              input_release,
    output logic                              input_release_half,
    // the next block, taken in the cycle of block_start
    input  logic                              block_valid,
    output logic                              block_start,
    input  logic [            COUNT_BITS-1:0] block_pixels,
    input  logic [                      15:0] block_vectors,
    input  logic                              block_first,          // of its psum tile
    input  logic                              block_last,
    input  logic                              block_weight_half,
    input  logic [   WEIGHT_ADDRESS_BITS-1:0] block_weight_address,
    input  logic                              block_input_half,
    input  logic                              block_weight_release, // its weight half is filled anew afterwards
    input  logic                              block_input_release,
    input  logic [            GROUP_BITS-1:0] block_lane_group,     // in its unit, 0 if not staged
    input  logic [            GROUP_BITS-1:0] block_spacing,        // entries that leave for each entry read
    input  logic [           LENGTH_BITS-1:0] block_length,         // pixels * spacing
    input  logic                              block_output,         // its tile leaves the PE
    input  logic [                      15:0] block_constants,      // which PPU constants
    // the address generator answers in the same cycle
    output logic                              step_valid,
    output logic [                      15:0] step_vector,
    output logic [            ENTRY_BITS-1:0] step_pixel,
    input  logic [    INPUT_ADDRESS_BITS-1:0] step_address,
    input  logic                              step_padding,
    // so do the PPU constants of a slice
    output logic [                      15:0] constants_index,
    output logic [            SLICE_BITS-1:0] constants_slice,
    input  logic [          PPU_LANES*16-1:0] multiplier,
    input  logic [           PPU_LANES*6-1:0] shift,
    input  logic [          PPU_LANES*24-1:0] bias,
    // flags of the accumulations of this cycle
    output logic                              overflow_valid,
    output logic [                 LANES-1:0] overflow,
    // out FIFO
    output logic                              out_valid,
    output logic [            FIFO_WIDTH-1:0] out_data,
    input  logic                              out_pop,
    output logic                              out_tile,             // complete in the FIFO in this cycle
    input  logic                              out_free,             // its entries are free in the next cycle
    input  logic [           LENGTH_BITS-1:0] out_free_entries
);
  localparam int WRITE_LATENCY = 2 + DOT_STAGES + (SCALE_KIND > 0 || SCALE_BITS > 0 ? SCALE_STAGES : 0) + (BLOCKS > 2 ? 1 : 0);
  localparam int READ_AT = WRITE_LATENCY - (ACCUMULATE_LATENCY - 1);
  localparam int AS_PORT = ACTIVATION_SCALE_BITS > 0 ? ACTIVATION_SCALE_BITS : 1;
  localparam int FREE_BITS = $clog2(FIFO_WORDS + 1);
  localparam int TAG_BITS = 16 + GROUP_BITS;

  // Issue.
  logic [1:0] weight_resident, input_resident, bank_free;
  logic next_bank;
  logic weight_read, weight_read_half, input_read_half, issue_bank, issue_from_zero, issue_tile_last;
  logic [WEIGHT_ADDRESS_BITS-1:0] weight_read_address;

  os_lws_sequencer #(
      .DEPTH(DEPTH),
      .ACCUMULATE_LATENCY(ACCUMULATE_LATENCY),
      .WEIGHT_ADDRESS_BITS(WEIGHT_ADDRESS_BITS)
  ) os_lws_sequencer (
      .clk(clk),
      .reset(reset),
      .block_valid(block_valid),
      .block_start(block_start),
      .block_pixels(block_pixels),
      .block_vectors(block_vectors),
      .block_first(block_first),
      .block_last(block_last),
      .block_weight_half(block_weight_half),
      .block_weight_address(block_weight_address),
      .block_input_half(block_input_half),
      .block_weight_release(block_weight_release),
      .block_input_release(block_input_release),
      .weight_resident(weight_resident),
      .input_resident(input_resident),
      .next_bank(next_bank),
      .next_bank_free(bank_free[next_bank]),
      .step_valid(step_valid),
      .step_pixel(step_pixel),
      .step_vector(step_vector),
      .step_weight_read(weight_read),
      .step_weight_half(weight_read_half),
      .step_weight_address(weight_read_address),
      .step_input_half(input_read_half),
      .step_bank(issue_bank),
      .step_from_zero(issue_from_zero),
      .step_tile_last(issue_tile_last),
      .weight_release(weight_release),
      .input_release(input_release)
  );
  assign weight_release_half = weight_read_half;
  assign input_release_half  = input_read_half;

  for (genvar h = 0; h < 2; h++) begin : halves
    always_ff @(posedge clk) begin
      if (reset) weight_resident[h] <= 1'b0;
      else if (weight_fill_done && weight_fill_half == 1'(h)) weight_resident[h] <= 1'b1;
      else if (weight_release && weight_release_half == 1'(h)) weight_resident[h] <= 1'b0;
      if (reset) input_resident[h] <= 1'b0;
      else if (input_fill_done && input_fill_half == 1'(h)) input_resident[h] <= 1'b1;
      else if (input_release && input_release_half == 1'(h)) input_resident[h] <= 1'b0;
    end
  end

  // t: address the buffers.
  logic [LANES*WEIGHT_WORD_BITS-1:0] weight_words;
  logic [INPUT_WORD_BITS-1:0] input_word;
  weight_buffer #(
      .LANES(LANES),
      .HALF_WORDS(WEIGHT_HALF_WORDS),
      .WIDTH(WEIGHT_WORD_BITS)
  ) weight_buffer (
      .clk(clk),
      .write(weight_write),
      .write_half(weight_write_half),
      .write_address(weight_write_address),
      .write_data(weight_write_data),
      .read(weight_read),
      .read_half(weight_read_half),
      .read_address(weight_read_address),
      .read_data(weight_words)
  );
  input_buffer #(
      .HALF_WORDS(INPUT_HALF_WORDS),
      .WIDTH(INPUT_WORD_BITS)
  ) input_buffer (
      .clk(clk),
      .write(input_write),
      .write_half(input_write_half),
      .write_address(input_write_address),
      .write_data(input_write_data),
      .read(step_valid && !step_padding),
      .read_half(input_read_half),
      .read_address(step_address),
      .read_data(input_word)
  );

  // What travels with a step: index k is k cycles after its issue. Only what makes something happen is reset.
  logic [WRITE_LATENCY:0] valid_at, from_zero_at, tile_last_at, bank_at, zero_at;
  logic [(WRITE_LATENCY+1)*ENTRY_BITS-1:0] entry_at;
  logic [WRITE_LATENCY-1:0] valid_line, from_zero_line, tile_last_line, bank_line;
  logic [WRITE_LATENCY-2:0] zero_line;
  logic [WRITE_LATENCY*ENTRY_BITS-1:0] entry_line;
  logic weight_load, padding, zero;
  assign valid_at = {valid_line, step_valid};
  assign from_zero_at = {from_zero_line, issue_from_zero};
  assign tile_last_at = {tile_last_line, issue_tile_last};
  assign bank_at = {bank_line, issue_bank};
  assign entry_at = {entry_line, step_pixel};
  assign zero_at = {zero_line, zero, 1'b0};  // known when the input register is loaded
  always_ff @(posedge clk) begin
    valid_line <= reset ? '0 : valid_at[WRITE_LATENCY-1:0];
    tile_last_line <= reset ? '0 : tile_last_at[WRITE_LATENCY-1:0];
    from_zero_line <= from_zero_at[WRITE_LATENCY-1:0];
    bank_line <= bank_at[WRITE_LATENCY-1:0];
    entry_line <= entry_at[WRITE_LATENCY*ENTRY_BITS-1:0];
    zero_line <= zero_at[WRITE_LATENCY-1:1];
  end
  always_ff @(posedge clk) begin
    weight_load <= reset ? 1'b0 : weight_read;
    padding <= step_padding;
  end

  // t+1: operand registers; t+2 and on: the lanes.
  localparam int ACTIVATION_VALUE_BITS = ACTIVATION_EXPONENT_BITS > 0
      ? ACTIVATION_BITS - 1 - ACTIVATION_EXPONENT_BITS + (1 << ACTIVATION_EXPONENT_BITS) : ACTIVATION_BITS;
  logic [VECTOR_SIZE*ACTIVATION_VALUE_BITS-1:0] activations;
  logic [BLOCKS*AS_PORT-1:0] activation_scales;
  input_register #(
      .VECTOR_SIZE(VECTOR_SIZE),
      .BLOCKS(BLOCKS),
      .ACTIVATION_BITS(ACTIVATION_BITS),
      .EXPONENT_BITS(ACTIVATION_EXPONENT_BITS),
      .SCALE_KIND(SCALE_KIND),
      .ACTIVATION_SCALE_BITS(ACTIVATION_SCALE_BITS),
      .REGISTERED(GATING != 2)
  ) input_register (
      .clk(clk),
      .load(valid_at[1]),
      .padding(padding),
      .word(input_word),
      .zero(zero),
      .activations(activations),
      .activation_scales(activation_scales)
  );

  logic [LANES*ACCUMULATOR_BITS-1:0] step_psums, write_psums;
  logic [PPU_LANES*ACCUMULATOR_BITS-1:0] drain_psums;
  logic [LANES-1:0] live_before, live;
  for (genvar lane = 0; lane < LANES; lane++) begin : lanes
    vector_mac #(
        .VECTOR_SIZE(VECTOR_SIZE),
        .BLOCKS(BLOCKS),
        .WEIGHT_BITS(WEIGHT_BITS),
        .WEIGHT_EXPONENT_BITS(WEIGHT_EXPONENT_BITS),
        .ACTIVATION_BITS(ACTIVATION_VALUE_BITS),
        .ACTIVATION_SIGN(ACTIVATION_SIGN),
        .WEIGHT_SCALE_BITS(WEIGHT_SCALE_BITS),
        .ACTIVATION_SCALE_BITS(ACTIVATION_SCALE_BITS),
        .SCALE_KIND(SCALE_KIND),
        .SCALE_BITS(SCALE_BITS),
        .PRODUCT_SHIFT(PRODUCT_SHIFT),
        .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
        .SATURATE(SATURATE),
        .ALIGN_NEAREST(ALIGN_NEAREST),
        .GATING(GATING),
        .DOT_STAGES(DOT_STAGES),
        .SCALE_STAGES(SCALE_STAGES)
    ) vector_mac (
        .clk(clk),
        .weight_load(weight_load),
        .weight_word(weight_words[lane*WEIGHT_WORD_BITS+:WEIGHT_WORD_BITS]),
        .activations(activations),
        .activation_scales(activation_scales),
        .activation_signed(input_signed),
        .align_constant(align_constant),
        .word_enable(valid_at[1] && !zero),
        .run(valid_at[WRITE_LATENCY-1:2] & ~zero_at[WRITE_LATENCY-1:2]),
        .product_zero(GATING > 0 ? from_zero_at[WRITE_LATENCY] : zero_at[WRITE_LATENCY]),
        .psum(step_psums[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]),
        .psum_next(write_psums[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]),
        .overflow(overflow[lane]),
        .live_before(live_before[lane]),
        .live(live[lane])
    );
  end

  // t+WRITE_LATENCY: the write.
  logic write_valid, write_bank, write_tile_last;
  logic [ENTRY_BITS-1:0] write_entry;
  assign write_valid = valid_at[WRITE_LATENCY];
  assign write_bank = bank_at[WRITE_LATENCY];
  assign write_entry = entry_at[WRITE_LATENCY*ENTRY_BITS+:ENTRY_BITS];
  assign write_tile_last = tile_last_at[WRITE_LATENCY];
  assign overflow_valid = write_valid;

  // Without gating the collector has one enable for all lanes; with it a first step is written by all.
  localparam int ENABLES = GATING > 0 ? LANES : 1;
  logic [ENABLES-1:0] step_lanes, write_lanes;
  if (GATING > 0) begin : by_lane
    assign step_lanes = live_before | {LANES{valid_at[READ_AT] && from_zero_at[READ_AT]}};
    assign write_lanes = live | {LANES{from_zero_at[WRITE_LATENCY]}};
  end else begin : all_lanes
    assign step_lanes = 1'b1;
    assign write_lanes = 1'b1;
    logic unused_live;
    assign unused_live = &{1'b0, live_before, live};
  end

  logic drain_valid, drain_read, drain_bank, drain_group_last, drain_output, drain_tile_last;
  logic [ENTRY_BITS-1:0] drain_pixel;
  logic [GROUP_BITS-1:0] drain_group;
  logic [SLICE_BITS-1:0] drain_slice;
  accumulation_collector #(
      .DEPTH(DEPTH),
      .WIDTH(LANES * ACCUMULATOR_BITS),
      .SLICES(SLICES),
      .ACCUMULATE_LATENCY(ACCUMULATE_LATENCY),
      .BY_LANE(GATING > 0),
      .LANES(ENABLES)
  ) accumulation_collector (
      .clk(clk),
      .step_read(valid_at[READ_AT] && !from_zero_at[READ_AT]),
      .step_lanes(step_lanes),
      .step_read_bank(bank_at[READ_AT]),
      .step_read_entry(entry_at[READ_AT*ENTRY_BITS+:ENTRY_BITS]),
      .step_psums(step_psums),
      .write(write_valid),
      .write_lanes(write_lanes),
      .write_bank(write_bank),
      .write_entry(write_entry),
      .write_psums(write_psums),
      .drain_read(drain_read),
      .drain_bank(drain_bank),
      .drain_entry(drain_pixel),
      .drain_slice(drain_slice),
      .drain_psums(drain_psums)
  );

  // Drain.
  logic [FREE_BITS-1:0] fifo_free;
  logic reserve;
  logic [LENGTH_BITS-1:0] reserve_entries;
  logic [TAG_BITS-1:0] drain_tag;
  drain_sequencer #(
      .DEPTH(DEPTH),
      .GROUPS(GROUPS),
      .SLICES(SLICES),
      .FIFO_WORDS(FIFO_WORDS),
      .WRITE_LATENCY(WRITE_LATENCY),
      .TAG_BITS(TAG_BITS)
  ) drain_sequencer (
      .clk(clk),
      .reset(reset),
      .tile_start(block_start && block_first),
      .tile_bank(next_bank),
      .tile_spacing(block_spacing),
      .tile_length(block_length),
      .tile_output(block_output),
      .tile_tag({block_constants, block_lane_group}),
      .bank_free(bank_free),
      .last_write(write_tile_last),
      .last_write_bank(write_bank),
      .fifo_free(fifo_free),
      .reserve(reserve),
      .reserve_entries(reserve_entries),
      .step_valid(drain_valid),
      .step_read(drain_read),
      .step_bank(drain_bank),
      .step_pixel(drain_pixel),
      .step_slice(drain_slice),
      .step_group(drain_group),
      .step_group_last(drain_group_last),
      .step_output(drain_output),
      .step_tile_last(drain_tile_last),
      .step_tag(drain_tag)
  );
  assign constants_index = drain_tag[TAG_BITS-1:GROUP_BITS];
  assign constants_slice = drain_slice;

  // PPU and FIFO.
  logic entry_valid, entry_tile_last;
  localparam int SLICE_VECTORS = PPU_LANES > OUT_BLOCK ? PPU_LANES / OUT_BLOCK : 1;
  localparam int SCALES_WIDTH = OUT_SCALE_BITS > 0 ? SLICE_VECTORS * OUT_SCALE_BITS : 1;
  logic [SLICE_BITS-1:0] entry_slice;
  logic [PPU_LANES*OUT_BITS-1:0] entry_codes;
  logic [SCALES_WIDTH-1:0] entry_scales;
  ppu #(
      .BLOCK(OUT_BLOCK),
      .ENTRY_LANES(LANES),
      .LANES(PPU_LANES),
      .DEPTH(DEPTH),
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .OUT_BITS(OUT_BITS),
      .OUT_EXPONENT_BITS(OUT_EXPONENT_BITS),
      .OUT_SCALE_BITS(OUT_SCALE_BITS),
      .OUT_KIND(OUT_KIND),
      .SCALES_UP(SCALES_UP),
      .FINE(PPU_FINE),
      .LATENCY(PPU_LATENCY)
  ) ppu (
      .clk(clk),
      .reset(reset),
      .relu(relu),
      .out_signed(out_signed),
      .out_exponent(out_exponent),
      .step_valid(drain_valid),
      .step_read(drain_read),
      .step_pixel(drain_pixel),
      .step_slice(drain_slice),
      .step_group(drain_group),
      .step_group_last(drain_group_last),
      .step_output(drain_output),
      .step_tile_last(drain_tile_last),
      .step_lane_group(drain_tag[GROUP_BITS-1:0]),
      .psums(drain_psums),
      .multiplier(multiplier),
      .shift(shift),
      .bias(bias),
      .entry_valid(entry_valid),
      .entry_slice(entry_slice),
      .entry_codes(entry_codes),
      .entry_scales(entry_scales),
      .entry_tile_last(entry_tile_last)
  );
  out_fifo #(
      .WORDS(FIFO_WORDS),
      .SLICES(SLICES),
      .CODES_WIDTH(PPU_LANES * OUT_BITS),
      .SCALE_GROUPS(OUT_SCALE_BITS == 0 ? 0 : PPU_LANES > OUT_BLOCK ? SLICES : VECTORS),
      .SCALES_WIDTH(SCALES_WIDTH),
      .LENGTH_BITS(LENGTH_BITS)
  ) out_fifo (
      .clk(clk),
      .reset(reset),
      .reserve(reserve),
      .reserve_entries(reserve_entries),
      .free(fifo_free),
      .write(entry_valid),
      .write_slice(entry_slice),
      .write_codes(entry_codes),
      .write_scales(entry_scales),
      .valid(out_valid),
      .read_data(out_data),
      .pop(out_pop),
      .free_up(out_free),
      .release_entries(out_free_entries)
  );
  always_ff @(posedge clk) begin
    out_tile <= !reset && entry_valid && entry_tile_last;
  end
endmodule
