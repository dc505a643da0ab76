`timescale 1ns / 1ps
// single_port_memory: one half of one macro of an operand buffer, to be replaced by an SRAM macro.
// A read in a cycle gives `read_data` in the next, held until the next read.
module single_port_memory #(
    parameter int WORDS = 128,
    parameter int WIDTH = 64,
    parameter int ADDRESS_BITS = WORDS > 1 ? $clog2(WORDS) : 1
) (
    input  logic                    clk,
    input  logic                    enable,
    input  logic                    write,
    input  logic [ADDRESS_BITS-1:0] address,
    input  logic [       WIDTH-1:0] write_data,
    output logic [       WIDTH-1:0] read_data
);
  logic [WIDTH-1:0] words[0:WORDS-1];
  always_ff @(posedge clk) begin
    if (enable && write) words[address] <= write_data;
    if (enable && !write) read_data <= words[address];
  end
endmodule
