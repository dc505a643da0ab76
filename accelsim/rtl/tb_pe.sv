`timescale 1ns / 1ps
// Self-checking testbench of pe_top: feeds a tile's program and operands, and compares every collector write
// (psums, overflow flags), drain read, FIFO entry, release, fill and output tile, in value and
// cycle (docs/rtl.md).
// Cycle 0 is the first one without reset. Files are in the folder +vectors=, one record a line.
module tb_pe_top;
//PARAMETERS//

  localparam int WORD = LANES * WEIGHT_WORD_BITS;
  localparam int WRITE_RECORD = 32 + LANES + LANES * ACCUMULATOR_BITS;
  localparam int ENTRY_RECORD = 32 + FIFO_WIDTH;
  localparam int CONSTANTS_RECORD = LANES * (16 + 6 + 24);

  logic [31:0] counts[0:22];
  logic [175:0] blocks[0:MAX_BLOCKS-1];
  logic [31:0] steps[0:MAX_STEPS-1];
  logic [63:0] weight_fetches[0:MAX_WEIGHT_FETCHES-1];
  logic [WORD-1:0] weight_words[0:MAX_WEIGHT_WORDS-1];
  logic [31:0] weight_releases[0:MAX_WEIGHT_RELEASES-1];
  logic [63:0] input_fetches[0:MAX_INPUT_FETCHES-1];
  logic [INPUT_WORD_BITS-1:0] input_words[0:MAX_INPUT_WORDS-1];
  logic [31:0] input_releases[0:MAX_INPUT_RELEASES-1];
  logic [CONSTANTS_RECORD-1:0] constants[0:MAX_CONSTANTS-1];
  logic [WRITE_RECORD-1:0] writes[0:MAX_WRITES-1];
  logic [31:0] drains[0:MAX_DRAINS-1];
  logic [ENTRY_RECORD-1:0] entries[0:MAX_ENTRIES-1];
  logic [63:0] outputs[0:MAX_OUTPUTS-1];

  reg [8*512-1:0] folder;
  reg [8*560-1:0] file;
  initial begin
    if (!$value$plusargs("vectors=%s", folder)) folder = "vectors";
    $sformat(file, "%0s/counts.hex", folder);
    $readmemh(file, counts, 0, 22);
//READS//
  end

  // Clock, reset, cycle.
  logic clk = 1'b0, reset = 1'b1;
  integer cycle = -40;
  always #1 clk = !clk;
  always_ff @(posedge clk) begin
    cycle <= cycle + 1;
    reset <= cycle + 1 < 0;
  end

  logic weight_write, weight_half, weight_fill_done, weight_release, weight_release_half;
  logic input_write, input_half, input_fill_done, input_release, input_release_half;
  logic block_start, step_valid, overflow_valid, out_valid, out_tile, out_free;
  logic [WEIGHT_ADDRESS_BITS-1:0] weight_address;
  logic [INPUT_ADDRESS_BITS-1:0] input_address;
  logic [15:0] step_vector, constants_index;
  logic [SLICE_BITS-1:0] constants_slice;
  logic [ENTRY_BITS-1:0] step_pixel;
  logic [LANES-1:0] overflow;
  logic [FIFO_WIDTH-1:0] out_data;

  // Blocks, and the address of each of their steps.
  integer block_at = 0;
  integer base_held, pixels_held;
  logic [175:0] block;
  assign block = blocks[block_at];
  wire [31:0] step_at = (block_start ? block[175:144] : base_held)
      + 32'(step_vector) * (block_start ? 32'(block[15:0]) : pixels_held) + 32'(step_pixel);
  wire [31:0] step = steps[step_at];
  wire [CONSTANTS_RECORD-1:0] constant = constants[constants_index];

  pe_top dut (
      .clk(clk),
      .reset(reset),
      .input_signed(counts[13][0]),
      .out_signed(counts[14][0]),
      .relu(counts[15][0]),
      .align_constant(counts[20][11:0]),
      .out_exponent(counts[21][11:0]),
      .weight_write(weight_write),
      .weight_write_half(weight_half),
      .weight_write_address(weight_address),
      .weight_write_data(weight_words[weight_word_at]),
      .weight_fill_done(weight_fill_done),
      .weight_fill_half(weight_half),
      .weight_release(weight_release),
      .weight_release_half(weight_release_half),
      .input_write(input_write),
      .input_write_half(input_half),
      .input_write_address(input_address),
      .input_write_data(input_words[input_word_at]),
      .input_fill_done(input_fill_done),
      .input_fill_half(input_half),
      .input_release(input_release),
      .input_release_half(input_release_half),
      .block_valid(!reset && block_at < counts[0]),
      .block_start(block_start),
      .block_pixels(block[0+:COUNT_BITS]),
      .block_vectors(block[31:16]),
      .block_first(block[32]),
      .block_last(block[33]),
      .block_weight_half(block[34]),
      .block_weight_address(block[48+:WEIGHT_ADDRESS_BITS]),
      .block_input_half(block[35]),
      .block_weight_release(block[36]),
      .block_input_release(block[37]),
      .block_lane_group(block[64+:GROUP_BITS]),
      .block_spacing(block[80+:GROUP_BITS]),
      .block_length(block[96+:LENGTH_BITS]),
      .block_output(block[38]),
      .block_constants(block[127:112]),
      .step_valid(step_valid),
      .step_vector(step_vector),
      .step_pixel(step_pixel),
      .step_address(step[INPUT_ADDRESS_BITS-1:0]),
      .step_padding(step[31]),
      .constants_index(constants_index),
      .constants_slice(constants_slice),
      .multiplier(constant[constants_slice*PPU_LANES*16+:PPU_LANES*16]),
      .shift(constant[LANES*16+constants_slice*PPU_LANES*6+:PPU_LANES*6]),
      .bias(constant[LANES*22+constants_slice*PPU_LANES*24+:PPU_LANES*24]),
      .overflow_valid(overflow_valid),
      .overflow(overflow),
      .out_valid(out_valid),
      .out_data(out_data),
      .out_pop(out_valid),
      .out_tile(out_tile),
      .out_free(out_free),
      .out_free_entries(output_sent[32+:LENGTH_BITS])
  );

  always_ff @(posedge clk) begin
    if (block_start) begin
      block_at <= block_at + 1;
      base_held <= block[175:144];
      pixels_held <= 32'(block[15:0]);
    end
  end

  // Fills: one word a cycle from when the half is free, then `delay` more cycles.
  integer weight_fetch_at = 0, weight_elapsed = 0, weight_word_at = 0;
  logic [1:0] weight_free = 2'b11;
  wire [63:0] weight_fetch = weight_fetches[weight_fetch_at];
  wire weight_filling = !reset && weight_fetch_at < counts[2]
      && (weight_elapsed > 0 || weight_free[weight_half]);
  assign weight_half = weight_fetch[31];
  assign weight_write = weight_filling && weight_elapsed < 32'(weight_fetch[15:0]);
  assign weight_address = weight_elapsed[WEIGHT_ADDRESS_BITS-1:0];
  assign weight_fill_done = weight_filling
      && weight_elapsed + 1 == 32'(weight_fetch[15:0]) + 32'(weight_fetch[30:16]);
  integer input_fetch_at = 0, input_elapsed = 0, input_word_at = 0;
  logic [1:0] input_free = 2'b11;
  wire [63:0] input_fetch = input_fetches[input_fetch_at];
  wire input_filling = !reset && input_fetch_at < counts[5] && (input_elapsed > 0 || input_free[input_half]);
  assign input_half = input_fetch[31];
  assign input_write = input_filling && input_elapsed < 32'(input_fetch[15:0]);
  assign input_address = input_elapsed[INPUT_ADDRESS_BITS-1:0];
  assign input_fill_done = input_filling
      && input_elapsed + 1 == 32'(input_fetch[15:0]) + 32'(input_fetch[30:16]);
  always_ff @(posedge clk) begin
    if (weight_filling) weight_elapsed <= weight_fill_done ? 0 : weight_elapsed + 1;
    if (weight_write) weight_word_at <= weight_word_at + 1;
    if (weight_fill_done) weight_fetch_at <= weight_fetch_at + 1;
    for (int h = 0; h < 2; h++) begin
      if (weight_release && weight_release_half == h[0]) weight_free[h] <= 1'b1;
      else if (weight_filling && weight_half == h[0]) weight_free[h] <= 1'b0;
    end
    if (input_filling) input_elapsed <= input_fill_done ? 0 : input_elapsed + 1;
    if (input_write) input_word_at <= input_word_at + 1;
    if (input_fill_done) input_fetch_at <= input_fetch_at + 1;
    for (int h = 0; h < 2; h++) begin
      if (input_release && input_release_half == h[0]) input_free[h] <= 1'b1;
      else if (input_filling && input_half == h[0]) input_free[h] <= 1'b0;
    end
  end

  // Output tiles leave one after another, `delay` cycles each.
  integer outputs_complete = 0, outputs_sent = 0, output_elapsed = 0;
  wire [63:0] output_sent = outputs[outputs_sent];
  wire sending = !reset && (outputs_complete + 32'(out_tile) > outputs_sent);
  assign out_free = sending && output_elapsed + 1 == 32'(output_sent[63:48]);
  always_ff @(posedge clk) begin
    if (!reset && out_tile) outputs_complete <= outputs_complete + 1;
    if (sending) output_elapsed <= out_free ? 0 : output_elapsed + 1;
    if (out_free) outputs_sent <= outputs_sent + 1;
  end

  // Checks. A cycle that is wrong and a value that is wrong are one mismatch each.
  integer psum_errors = 0, overflow_errors = 0, code_errors = 0, cycle_errors = 0, rule_errors = 0;
  integer psums = 0, codes = 0, cycles = 0, overflows = 0, shown = 0;
  integer zero_words = 0, products_loaded = 0, psums_read = 0, psums_written = 0;
  integer write_at = 0, drain_at = 0, entry_at = 0, weight_release_at = 0, input_release_at = 0;

  task automatic check_cycle(input [8*16-1:0] what, input integer index, input integer expected,
                             input integer found);
    cycles = cycles + 1;
    if (expected !== found) begin
      cycle_errors = cycle_errors + 1;
      shown = shown + 1;
      if (shown < 20) $display("%0s %0d: cycle %0d, expected %0d", what, index, found, expected);
    end
  endtask

  task automatic rule(input broken, input [8*40-1:0] what);
    if (broken) begin
      rule_errors = rule_errors + 1;
      shown = shown + 1;
      if (shown < 20) $display("cycle %0d: %0s", cycle, what);
    end
  endtask

  // What the collector holds by the writes that it took: a lane that gates does not write every psum.
  logic [LANES*ACCUMULATOR_BITS-1:0] held[0:2*DEPTH-1];
  wire [31:0] write_at_entry = 32'(dut.pe.write_bank) * DEPTH + 32'(dut.pe.write_entry);
  logic [LANES*ACCUMULATOR_BITS-1:0] written;
  always_comb begin
    written = held[write_at_entry];
    for (int lane = 0; lane < LANES; lane++) begin
      if (dut.pe.write_lanes[GATING > 0 ? lane : 0]) begin
        written[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]
            = dut.pe.write_psums[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS];
      end
    end
  end
  always_ff @(posedge clk) begin
    if (!reset && overflow_valid) held[write_at_entry] <= written;
  end

  logic [WRITE_RECORD-1:0] write_expected;
  logic [ENTRY_RECORD-1:0] entry_expected;
  always @(posedge clk) begin
    if (!reset) begin
      if (overflow_valid) begin
        write_expected = writes[write_at];
        check_cycle("write", write_at, write_expected[31:0], cycle);
        for (int lane = 0; lane < LANES; lane++) begin
          psums = psums + 1;
          overflows = overflows + 32'(overflow[lane]);
          if (overflow[lane] !== write_expected[32+lane]) overflow_errors = overflow_errors + 1;
          if (written[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]
              !== write_expected[32+LANES+lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]) begin
            psum_errors = psum_errors + 1;
            shown = shown + 1;
            if (shown < 20) begin
              $display("write %0d, lane %0d: psum %h, expected %h", write_at, lane,
                       written[lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS],
                       write_expected[32+LANES+lane*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]);
            end
          end
        end
        write_at = write_at + 1;
      end
      zero_words = zero_words + 32'(dut.pe.valid_at[1] && dut.pe.zero);
      if (GATING > 0) begin
        for (int lane = 0; lane < LANES; lane++) begin
          products_loaded = products_loaded + 32'(dut.pe.live_before[lane]);
          psums_written = psums_written + 32'(overflow_valid && dut.pe.write_lanes[GATING > 0 ? lane : 0]);
          psums_read = psums_read + 32'(dut.pe.accumulation_collector.step_read
                                        && dut.pe.step_lanes[GATING > 0 ? lane : 0]);
        end
      end
      if (dut.pe.drain_read) begin
        check_cycle("drain read", drain_at, drains[drain_at], cycle);
        drain_at = drain_at + 1;
      end
      if (out_valid) begin
        entry_expected = entries[entry_at];
        check_cycle("entry", entry_at, entry_expected[31:0], cycle);
        codes = codes + LANES;
        if (out_data !== entry_expected[ENTRY_RECORD-1:32]) begin
          code_errors = code_errors + 1;
          shown = shown + 1;
          if (shown < 20) begin
            $display("entry %0d: %h, expected %h", entry_at, out_data, entry_expected[ENTRY_RECORD-1:32]);
          end
        end
        entry_at = entry_at + 1;
      end
      if (out_tile) check_cycle("output tile", outputs_complete, outputs[outputs_complete][31:0], cycle);
      if (weight_fill_done) check_cycle("weight fill", weight_fetch_at, weight_fetch[63:32], cycle + 1);
      if (input_fill_done) check_cycle("input fill", input_fetch_at, input_fetch[63:32], cycle + 1);
      if (weight_release) begin
        check_cycle("weight release", weight_release_at, weight_releases[weight_release_at], cycle + 1);
        weight_release_at = weight_release_at + 1;
      end
      if (input_release) begin
        check_cycle("input release", input_release_at, input_releases[input_release_at], cycle + 1);
        input_release_at = input_release_at + 1;
      end
      rule(weight_write && dut.pe.weight_read && weight_half == dut.pe.weight_read_half,
           "weight half read and written");
      rule(input_write && step_valid && !step[31] && input_half == dut.pe.input_read_half,
           "input half read and written");
      rule(dut.pe.drain_read && dut.pe.accumulation_collector.step_read
           && dut.pe.drain_bank == dut.pe.accumulation_collector.step_read_bank, "collector bank read twice");
    end
    if (cycle == counts[16]) begin
      rule(block_at !== counts[0], "blocks not issued");
      rule(write_at !== counts[9], "wrong number of writes");
      rule(drain_at !== counts[10], "wrong number of drain reads");
      rule(entry_at !== counts[11], "wrong number of entries");
      rule(outputs_complete !== counts[12] || outputs_sent !== counts[12], "wrong number of output tiles");
      rule(weight_release_at !== counts[4] || input_release_at !== counts[7], "wrong number of releases");
      rule(zero_words !== counts[22], "wrong number of zero words");
      rule(GATING > 0 && products_loaded !== counts[17], "wrong number of products loaded");
      rule(GATING > 0 && psums_read !== counts[18], "wrong number of lanes that read");
      rule(GATING > 0 && psums_written !== counts[19], "wrong number of lanes that write");
      $display("psums %0d codes %0d overflows %0d cycles %0d mismatches %0d %0d %0d %0d %0d %0s",
               psums, codes, overflows, cycles, psum_errors, overflow_errors, code_errors, cycle_errors,
               rule_errors, (psum_errors + overflow_errors + code_errors + cycle_errors + rule_errors == 0)
               ? "PASS" : "FAIL");
      $finish;
    end
  end
endmodule
