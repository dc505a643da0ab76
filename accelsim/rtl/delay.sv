`timescale 1ns / 1ps
// delay: CYCLES registers in a row; a wire for 0.
module delay #(
    parameter int WIDTH  = 1,
    parameter int CYCLES = 1
) (
    input  logic             clk,
    input  logic [WIDTH-1:0] in,
    output logic [WIDTH-1:0] out
);
  if (CYCLES == 0) begin : wire_only
    assign out = in;
    logic unused;
    assign unused = &{1'b0, clk};
  end else if (CYCLES == 1) begin : one
    always_ff @(posedge clk) out <= in;
  end else begin : more
    logic [CYCLES*WIDTH-1:0] line;
    always_ff @(posedge clk) line <= {line[(CYCLES-1)*WIDTH-1:0], in};
    assign out = line[CYCLES*WIDTH-1-:WIDTH];
  end
endmodule
