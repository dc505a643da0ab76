`timescale 1ns / 1ps
// ppu_staging: z-values of the earlier lane groups of a unit, and the largest |z| of each pixel so far.
// docs/machine.md (staged output). A row is a slice of an entry. The last lane group of a unit is never staged, so GROUPS - 1
// rows a pixel are enough.
module ppu_staging #(
    parameter int DEPTH = 16,
    parameter int GROUPS = 4,
    parameter int SLICES = 1,
    parameter int LANES = 4,  // of a slice
    parameter int ENTRY_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1,
    parameter int SLICE_BITS = SLICES > 1 ? $clog2(SLICES) : 1,
    parameter int GROUP_BITS = $clog2(GROUPS + 1)
) (
    input  logic                  clk,
    input  logic                  write,          // values; with the last slice also their running maximum
    input  logic                  write_last,
    input  logic [ENTRY_BITS-1:0] pixel,
    input  logic [GROUP_BITS-1:0] write_group,
    input  logic [SLICE_BITS-1:0] write_slice,
    input  logic [  LANES*24-1:0] write_values,
    input  logic [          22:0] write_largest,
    input  logic [ENTRY_BITS-1:0] read_pixel,
    input  logic [GROUP_BITS-1:0] read_group,
    input  logic [SLICE_BITS-1:0] read_slice,
    output logic [  LANES*24-1:0] read_values,
    output logic [          22:0] read_largest
);
  localparam int ROWS = DEPTH * (GROUPS - 1) * SLICES;
  localparam int ROW_BITS = ROWS > 1 ? $clog2(ROWS) : 1;

  logic [LANES*24-1:0] values[0:ROWS-1];
  logic [22:0] largest[0:DEPTH-1];
  logic [ROW_BITS-1:0] write_row, read_row;
  assign write_row = ROW_BITS'((32'(pixel) * (GROUPS - 1) + 32'(write_group)) * SLICES + 32'(write_slice));
  assign read_row = ROW_BITS'((32'(read_pixel) * (GROUPS - 1) + 32'(read_group)) * SLICES + 32'(read_slice));
  assign read_values = values[read_row];
  assign read_largest = largest[pixel];
  always_ff @(posedge clk) begin
    if (write) values[write_row] <= write_values;
    if (write && write_last) largest[pixel] <= write_largest;
  end
endmodule
