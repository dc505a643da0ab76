`timescale 1ns / 1ps
// out_fifo: entries of L codes with their scales, between PPU and out-port.
// docs/timing.md: a drain reserves all its entries when it starts; they are free again when the
// transfer of the whole output tile has ended (`release_entries` with `free_up`).
module out_fifo #(
    parameter int WORDS = 32,
    parameter int WIDTH = 64,
    parameter int LENGTH_BITS = 5,
    parameter int FREE_BITS = $clog2(WORDS + 1)
) (
    input  logic                   clk,
    input  logic                   reset,
    input  logic                   reserve,
    input  logic [LENGTH_BITS-1:0] reserve_entries,
    output logic [  FREE_BITS-1:0] free,
    input  logic                   write,
    input  logic [      WIDTH-1:0] write_data,
    output logic                   valid,
    output logic [      WIDTH-1:0] read_data,
    input  logic                   pop,
    input  logic                   free_up,
    input  logic [LENGTH_BITS-1:0] release_entries
);
  localparam int POINTER_BITS = WORDS > 1 ? $clog2(WORDS) : 1;
  localparam logic [POINTER_BITS-1:0] LAST = POINTER_BITS'(WORDS - 1);

  logic [WIDTH-1:0] entries[0:WORDS-1];
  logic [POINTER_BITS-1:0] write_pointer, read_pointer;
  logic [FREE_BITS-1:0] held;  // entries written and not popped

  assign valid = held != '0;
  assign read_data = entries[read_pointer];

  always_ff @(posedge clk) begin
    if (reset) begin
      free <= FREE_BITS'(WORDS);
      held <= '0;
      write_pointer <= '0;
      read_pointer <= '0;
    end else begin
      free <= free - (reserve ? FREE_BITS'(reserve_entries) : '0)
          + (free_up ? FREE_BITS'(release_entries) : '0);
      held <= held + FREE_BITS'(write) - FREE_BITS'(pop);
      if (write) write_pointer <= write_pointer == LAST ? '0 : write_pointer + 1'b1;
      if (pop) read_pointer <= read_pointer == LAST ? '0 : read_pointer + 1'b1;
    end
    if (write) entries[write_pointer] <= write_data;
  end
endmodule
