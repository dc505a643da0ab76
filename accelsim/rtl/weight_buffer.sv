`timescale 1ns / 1ps
// weight_buffer: L macros of two single-port halves, read and filled at one address in all lanes.
// docs/machine.md.
module weight_buffer #(
    parameter int LANES = 16,
    parameter int HALF_WORDS = 128,
    parameter int WIDTH = 68,
    parameter int ADDRESS_BITS = HALF_WORDS > 1 ? $clog2(HALF_WORDS) : 1
) (
    input  logic                    clk,
    input  logic                    write,
    input  logic                    write_half,
    input  logic [ADDRESS_BITS-1:0] write_address,
    input  logic [ LANES*WIDTH-1:0] write_data,
    input  logic                    read,
    input  logic                    read_half,
    input  logic [ADDRESS_BITS-1:0] read_address,
    output logic [ LANES*WIDTH-1:0] read_data  // in the next cycle
);
  // A macro behaves as the input buffer does.
  for (genvar lane = 0; lane < LANES; lane++) begin : macros
    input_buffer #(
        .HALF_WORDS(HALF_WORDS),
        .WIDTH(WIDTH)
    ) macro (
        .clk(clk),
        .write(write),
        .write_half(write_half),
        .write_address(write_address),
        .write_data(write_data[lane*WIDTH+:WIDTH]),
        .read(read),
        .read_half(read_half),
        .read_address(read_address),
        .read_data(read_data[lane*WIDTH+:WIDTH])
    );
  end
endmodule
