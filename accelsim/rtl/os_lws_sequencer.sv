`timescale 1ns / 1ps
// os_lws_sequencer: issues blocks, one step or bubble a cycle.
// docs/timing.md (Issue): n_g * max(d, ACCUMULATE_LATENCY) slots, d steps and then bubbles for
// each g; the next block starts on the next cycle if its operands are resident and, for the first block of a
// psum tile, the bank is free. Psum tiles alternate banks. Weights are released with the first step of the
// last g, inputs with the last step.
module os_lws_sequencer #(
    parameter int DEPTH = 16,
    parameter int ACCUMULATE_LATENCY = 2,
    parameter int WEIGHT_ADDRESS_BITS = 7,
    parameter int VECTOR_COUNT_BITS = 16,
    parameter int COUNT_BITS = $clog2(DEPTH + 1),
    parameter int ENTRY_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1
) (
    input  logic                           clk,
    input  logic                           reset,
    // the next block of the program, taken in the cycle of block_start
    input  logic                           block_valid,
    output logic                           block_start,
    input  logic [         COUNT_BITS-1:0] block_pixels,   // d
    input  logic [  VECTOR_COUNT_BITS-1:0] block_vectors,  // n_g
    input  logic                           block_first,    // of its psum tile
    input  logic                           block_last,
    input  logic                           block_weight_half,
    input  logic [WEIGHT_ADDRESS_BITS-1:0] block_weight_address,
    input  logic                           block_input_half,
    input  logic                           block_weight_release,
    input  logic                           block_input_release,
    input  logic [                    1:0] weight_resident,
    input  logic [                    1:0] input_resident,
    output logic                           next_bank,      // of the block that is offered
    input  logic                           next_bank_free,
    // the step issued in this cycle
    output logic                           step_valid,
    output logic [         ENTRY_BITS-1:0] step_pixel,
    output logic [  VECTOR_COUNT_BITS-1:0] step_vector,    // within the block
    output logic                           step_weight_read,
    output logic                           step_weight_half,
    output logic [WEIGHT_ADDRESS_BITS-1:0] step_weight_address,
    output logic                           step_input_half,
    output logic                           step_bank,
    output logic                           step_from_zero,
    output logic                           step_tile_last,
    output logic                           weight_release,
    output logic                           input_release
);
  localparam int SLOT_BITS = COUNT_BITS > 3 ? COUNT_BITS : 3;

  logic active;
  logic [SLOT_BITS-1:0] slot;
  logic [VECTOR_COUNT_BITS-1:0] vector;

  // The running block.
  logic [COUNT_BITS-1:0] held_pixels;
  logic [VECTOR_COUNT_BITS-1:0] held_vectors;
  logic [WEIGHT_ADDRESS_BITS-1:0] held_weight_address;
  logic held_first, held_last, held_weight_half, held_input_half, held_weight_release, held_input_release;
  logic held_bank;

  assign block_start = !active && block_valid && weight_resident[block_weight_half]
      && input_resident[block_input_half] && (!block_first || next_bank_free);

  // In the cycle of its start a block is taken from the port, later from the registers.
  logic [COUNT_BITS-1:0] pixels;
  logic [VECTOR_COUNT_BITS-1:0] vectors;
  logic first, last, releases_weight, releases_input;
  assign pixels = active ? held_pixels : block_pixels;
  assign vectors = active ? held_vectors : block_vectors;
  assign first = active ? held_first : block_first;
  assign last = active ? held_last : block_last;
  assign releases_weight = active ? held_weight_release : block_weight_release;
  assign releases_input = active ? held_input_release : block_input_release;

  logic running, last_vector, last_step_of_vector, last_slot;
  logic [SLOT_BITS-1:0] wide_pixels, slots;
  assign running = active || block_start;
  assign wide_pixels = SLOT_BITS'(pixels);
  assign slots = wide_pixels < SLOT_BITS'(ACCUMULATE_LATENCY) ? SLOT_BITS'(ACCUMULATE_LATENCY) : wide_pixels;
  assign last_vector = vector == vectors - 1'b1;
  assign last_step_of_vector = slot == wide_pixels - 1'b1;
  assign last_slot = slot == slots - 1'b1;

  assign step_valid = running && slot < wide_pixels;
  assign step_pixel = slot[ENTRY_BITS-1:0];
  assign step_vector = vector;
  assign step_weight_read = running && slot == '0;
  assign step_weight_half = active ? held_weight_half : block_weight_half;
  assign step_weight_address =
      (active ? held_weight_address : block_weight_address) + WEIGHT_ADDRESS_BITS'(vector);
  assign step_input_half = active ? held_input_half : block_input_half;
  assign step_bank = active ? held_bank : next_bank;
  assign step_from_zero = first && vector == '0;
  assign step_tile_last = step_valid && last && last_vector && last_step_of_vector;
  assign weight_release = step_weight_read && last_vector && releases_weight;
  assign input_release = step_valid && last_vector && last_step_of_vector && releases_input;

  always_ff @(posedge clk) begin
    if (reset) begin
      active <= 1'b0;
      slot <= '0;
      vector <= '0;
      next_bank <= 1'b0;
    end else if (running) begin
      if (!last_slot) begin
        slot   <= slot + 1'b1;
        active <= 1'b1;
      end else begin
        slot   <= '0;
        vector <= last_vector ? '0 : vector + 1'b1;
        active <= !last_vector;
      end
      if (block_start && block_last) next_bank <= !next_bank;
    end
    if (block_start) begin
      held_pixels <= block_pixels;
      held_vectors <= block_vectors;
      held_first <= block_first;
      held_last <= block_last;
      held_weight_half <= block_weight_half;
      held_weight_address <= block_weight_address;
      held_input_half <= block_input_half;
      held_weight_release <= block_weight_release;
      held_input_release <= block_input_release;
      held_bank <= next_bank;
    end
  end
endmodule
