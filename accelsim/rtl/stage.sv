`timescale 1ns / 1ps
// stage: a value taken when `enable` is set and held after; seen in the next cycle (REGISTERED) or at once.
// The PPU's pipeline is a row of these, so that its latency is a parameter.
module stage #(
    parameter int WIDTH = 1,
    parameter bit REGISTERED = 1'b1
) (
    input  logic             clk,
    input  logic             reset,  // clears; tied to 0 for data
    input  logic             enable,
    input  logic [WIDTH-1:0] in,
    output logic [WIDTH-1:0] out
);
  logic [WIDTH-1:0] held;
  always_ff @(posedge clk) begin
    if (reset) held <= '0;
    else if (enable) held <= in;
  end
  if (REGISTERED) begin : registered
    assign out = held;
  end else begin : transparent
    assign out = enable ? in : held;
  end
endmodule
