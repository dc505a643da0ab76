`timescale 1ns / 1ps
// out_fifo: entries of L codes with their scales, between PPU and out-port. An entry is written slice by slice, the
// scales of a slice's vectors with it, and is in the FIFO when its last slice is.
// docs/timing.md: a drain reserves all its entries when it starts; they are free again when the
// transfer of the whole output tile has ended (`release_entries` with `free_up`).
module out_fifo #(
    parameter int WORDS = 32,
    parameter int SLICES = 1,
    parameter int CODES_WIDTH = 64,   // of a slice
    parameter int SCALE_GROUPS = 1,   // of an entry, written at a time; 0 without scales
    parameter int SCALES_WIDTH = 4,   // of a group
    parameter int LENGTH_BITS = 5,
    parameter int FREE_BITS = $clog2(WORDS + 1),
    parameter int SLICE_BITS = SLICES > 1 ? $clog2(SLICES) : 1,
    parameter int SCALES_PORT = SCALE_GROUPS > 0 ? SCALES_WIDTH : 1,
    parameter int WIDTH = SLICES * CODES_WIDTH + SCALE_GROUPS * SCALES_WIDTH
) (
    input  logic                   clk,
    input  logic                   reset,
    input  logic                   reserve,
    input  logic [LENGTH_BITS-1:0] reserve_entries,
    output logic [  FREE_BITS-1:0] free,
    input  logic                   write,
    input  logic [ SLICE_BITS-1:0] write_slice,
    input  logic [CODES_WIDTH-1:0] write_codes,
    input  logic [SCALES_PORT-1:0] write_scales,
    output logic                   valid,
    output logic [      WIDTH-1:0] read_data,
    input  logic                   pop,
    input  logic                   free_up,
    input  logic [LENGTH_BITS-1:0] release_entries
);
  localparam int POINTER_BITS = WORDS > 1 ? $clog2(WORDS) : 1;
  localparam logic [POINTER_BITS-1:0] LAST = POINTER_BITS'(WORDS - 1);

  logic [POINTER_BITS-1:0] write_pointer, read_pointer;
  logic [FREE_BITS-1:0] held;  // entries written and not popped
  logic complete;
  assign complete = write && 32'(write_slice) == SLICES - 1;

  assign valid = held != '0;
  for (genvar s = 0; s < SLICES; s++) begin : slices
    logic [CODES_WIDTH-1:0] codes[0:WORDS-1];
    assign read_data[s*CODES_WIDTH+:CODES_WIDTH] = codes[read_pointer];
    always_ff @(posedge clk) begin
      if (write && 32'(write_slice) == s) codes[write_pointer] <= write_codes;
    end
  end
  for (genvar g = 0; g < SCALE_GROUPS; g++) begin : scale_groups
    localparam int AT = (g + 1) * (SLICES / SCALE_GROUPS) - 1;  // the group's last slice
    logic [SCALES_WIDTH-1:0] scales[0:WORDS-1];
    assign read_data[SLICES*CODES_WIDTH+g*SCALES_WIDTH+:SCALES_WIDTH] = scales[read_pointer];
    always_ff @(posedge clk) begin
      if (write && 32'(write_slice) == AT) scales[write_pointer] <= write_scales;
    end
  end
  if (SCALE_GROUPS == 0) begin : no_scales
    logic unused;
    assign unused = &{1'b0, write_scales};
  end

  always_ff @(posedge clk) begin
    if (reset) begin
      free <= FREE_BITS'(WORDS);
      held <= '0;
      write_pointer <= '0;
      read_pointer <= '0;
    end else begin
      free <= free - (reserve ? FREE_BITS'(reserve_entries) : '0)
          + (free_up ? FREE_BITS'(release_entries) : '0);
      held <= held + FREE_BITS'(complete) - FREE_BITS'(pop);
      if (complete) write_pointer <= write_pointer == LAST ? '0 : write_pointer + 1'b1;
      if (pop) read_pointer <= read_pointer == LAST ? '0 : read_pointer + 1'b1;
    end
  end
endmodule
