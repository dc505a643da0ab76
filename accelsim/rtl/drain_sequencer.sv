`timescale 1ns / 1ps
// drain_sequencer: reads finished psum tiles out of the collector; tells the issue side which bank is free.
// docs/timing.md (Drain, and the bank rule of Issue). A drain starts in the first cycle after the
// tile's last write and the previous drain in which the out FIFO has all entries it needs; it never stops then.
// An entry takes a cycle for each of its slices. `spacing` is 1, or for the last lane group of a staged unit the
// unit's lane groups: the slices of a psum entry are then read every `spacing` entries, while the staged values of
// the same pixel leave.
module drain_sequencer #(
    parameter int DEPTH = 16,
    parameter int GROUPS = 1,  // most lane groups of a unit whose outputs are staged
    parameter int SLICES = 1,  // of an entry
    parameter int FIFO_WORDS = 32,
    parameter int WRITE_LATENCY = 4,
    parameter int TAG_BITS = 8,
    parameter int ENTRY_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1,
    parameter int SPACING_BITS = $clog2(GROUPS + 1),
    parameter int LENGTH_BITS = $clog2(DEPTH * GROUPS + 1),
    parameter int SLICE_BITS = SLICES > 1 ? $clog2(SLICES) : 1,
    parameter int FREE_BITS = $clog2(FIFO_WORDS + 1)
) (
    input  logic                    clk,
    input  logic                    reset,
    // a psum tile starts to issue
    input  logic                    tile_start,
    input  logic                    tile_bank,
    input  logic [SPACING_BITS-1:0] tile_spacing,
    input  logic [ LENGTH_BITS-1:0] tile_length,   // entries of its drain: d * spacing
    input  logic                    tile_output,   // the drain leaves these entries in the FIFO
    input  logic [    TAG_BITS-1:0] tile_tag,      // handed on with every drain step
    output logic [             1:0] bank_free,     // a tile may start in this cycle
    // the last write of the tile in a bank
    input  logic                    last_write,
    input  logic                    last_write_bank,
    input  logic [   FREE_BITS-1:0] fifo_free,
    output logic                    reserve,       // tile_length entries of the FIFO
    output logic [ LENGTH_BITS-1:0] reserve_entries,
    // the drain step of this cycle
    output logic                    step_valid,
    output logic                    step_read,     // a slice of a collector entry is read
    output logic                    step_bank,
    output logic [  ENTRY_BITS-1:0] step_pixel,
    output logic [  SLICE_BITS-1:0] step_slice,
    output logic [SPACING_BITS-1:0] step_group,    // lane group whose values leave, if spacing > 1
    output logic                    step_group_last,
    output logic                    step_output,
    output logic                    step_tile_last,
    output logic [    TAG_BITS-1:0] step_tag
);
  // What is known of the tile in each bank, flat: bank 1 in the upper half.
  logic [1:0] pending, ready, has_output;
  logic [2*SPACING_BITS-1:0] bank_spacing;
  logic [2*LENGTH_BITS-1:0] bank_length;
  logic [2*TAG_BITS-1:0] bank_tag;

  logic active, bank, drains_output;
  logic [ENTRY_BITS-1:0] pixel;
  logic [SPACING_BITS-1:0] group, spacing;
  localparam int CYCLE_BITS = $clog2(DEPTH * GROUPS * SLICES + 1);
  logic [SLICE_BITS-1:0] slice;
  logic [CYCLE_BITS-1:0] left, reads_left;  // cycles after this one, until the end and until the last read
  logic [TAG_BITS-1:0] tag;

  logic next_bank;  // of the next drain
  logic [SPACING_BITS-1:0] next_spacing;
  logic [LENGTH_BITS-1:0] next_length, next_needs;
  logic start;
  assign next_spacing = next_bank ? bank_spacing[SPACING_BITS+:SPACING_BITS] : bank_spacing[0+:SPACING_BITS];
  assign next_length = next_bank ? bank_length[LENGTH_BITS+:LENGTH_BITS] : bank_length[0+:LENGTH_BITS];
  assign next_needs = has_output[next_bank] ? next_length : '0;
  // LENGTH_BITS and FREE_BITS have no fixed order; 32 bits hold both.
  assign start = !active && ready[next_bank] && 32'(next_needs) <= 32'(fifo_free);

  assign reserve = start && has_output[next_bank];
  assign reserve_entries = next_length;

  logic [CYCLE_BITS-1:0] now_left, now_reads_left;
  logic step_slice_last;
  assign step_valid = active || start;
  assign step_bank = active ? bank : next_bank;
  assign step_pixel = active ? pixel : '0;
  assign step_group = active ? group : '0;
  assign step_slice = active ? slice : '0;
  assign step_slice_last = 32'(step_slice) == SLICES - 1;
  assign step_read = step_valid && step_group == '0;
  assign step_group_last = step_group == (active ? spacing : next_spacing) - 1'b1;
  assign step_output = active ? drains_output : has_output[next_bank];
  assign step_tag = active ? tag : (next_bank ? bank_tag[TAG_BITS+:TAG_BITS] : bank_tag[0+:TAG_BITS]);
  assign now_left = active ? left : CYCLE_BITS'(32'(next_length) * SLICES - 1);
  assign now_reads_left = active ? reads_left
      : CYCLE_BITS'((32'(next_length) - 32'(next_spacing)) * SLICES + SLICES - 1);
  assign step_tile_last = step_valid && now_left == '0;

  // A tile may start when the drain of the bank's last tile has started and its last read comes before the
  // tile's first write, WRITE_LATENCY cycles from now.
  for (genvar b = 0; b < 2; b++) begin : banks
    logic starts, reads_late;
    assign starts = start && next_bank == 1'(b);
    assign reads_late = step_valid && step_bank == 1'(b) && 32'(now_reads_left) >= WRITE_LATENCY;
    assign bank_free[b] = (!pending[b] || starts) && !reads_late;
    always_ff @(posedge clk) begin
      if (reset) begin
        pending[b] <= 1'b0;
        ready[b]   <= 1'b0;
      end else begin
        if (tile_start && tile_bank == 1'(b)) pending[b] <= 1'b1;
        else if (starts) pending[b] <= 1'b0;
        if (last_write && last_write_bank == 1'(b)) ready[b] <= 1'b1;
        else if (starts) ready[b] <= 1'b0;
      end
      if (tile_start && tile_bank == 1'(b)) begin
        has_output[b] <= tile_output;
        bank_spacing[b*SPACING_BITS+:SPACING_BITS] <= tile_spacing;
        bank_length[b*LENGTH_BITS+:LENGTH_BITS] <= tile_length;
        bank_tag[b*TAG_BITS+:TAG_BITS] <= tile_tag;
      end
    end
  end

  always_ff @(posedge clk) begin
    if (reset) begin
      active <= 1'b0;
      next_bank <= 1'b0;
    end else begin
      if (start) next_bank <= !next_bank;
      if (step_valid) active <= now_left != '0;
    end
    if (start) begin
      bank <= next_bank;
      spacing <= next_spacing;
      drains_output <= has_output[next_bank];
      tag <= step_tag;
    end
    if (step_valid) begin
      left <= now_left - 1'b1;
      reads_left <= now_reads_left == '0 ? '0 : now_reads_left - 1'b1;
      slice <= step_slice_last ? '0 : step_slice + 1'b1;
      if (step_slice_last) begin
        group <= step_group_last ? '0 : step_group + 1'b1;
        pixel <= step_group_last ? step_pixel + 1'b1 : step_pixel;
      end else begin
        group <= step_group;
        pixel <= step_pixel;
      end
    end
  end
endmodule
