`timescale 1ns / 1ps
// input_buffer: two single-port halves; one is read while the other is filled.
// docs/machine.md. Writing the half that is being read is the caller's mistake: the write wins.
module input_buffer #(
    parameter int HALF_WORDS = 512,
    parameter int WIDTH = 68,
    parameter int ADDRESS_BITS = HALF_WORDS > 1 ? $clog2(HALF_WORDS) : 1
) (
    input  logic                    clk,
    input  logic                    write,
    input  logic                    write_half,
    input  logic [ADDRESS_BITS-1:0] write_address,
    input  logic [       WIDTH-1:0] write_data,
    input  logic                    read,
    input  logic                    read_half,
    input  logic [ADDRESS_BITS-1:0] read_address,
    output logic [       WIDTH-1:0] read_data  // in the next cycle
);
  logic [2*WIDTH-1:0] half_data;
  for (genvar h = 0; h < 2; h++) begin : halves
    logic own_write, own_read;
    assign own_write = write && (write_half == 1'(h));
    assign own_read  = read && (read_half == 1'(h));
    single_port_memory #(
        .WORDS(HALF_WORDS),
        .WIDTH(WIDTH)
    ) memory (
        .clk(clk),
        .enable(own_write || own_read),
        .write(own_write),
        .address(own_write ? write_address : read_address),
        .write_data(write_data),
        .read_data(half_data[h*WIDTH+:WIDTH])
    );
  end

  logic last_half;
  always_ff @(posedge clk) begin
    if (read) last_half <= read_half;
  end
  assign read_data = last_half ? half_data[WIDTH+:WIDTH] : half_data[0+:WIDTH];
endmodule
