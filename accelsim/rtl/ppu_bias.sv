`timescale 1ns / 1ps
// ppu_bias: z = sat(scaled + round + bias), then ReLU, of one lane; combinational.
// docs/numerics.md (PPU, second line of z).
module ppu_bias (
    input  logic signed [23:0] scaled,
    input  logic               round,
    input  logic signed [23:0] bias,
    input  logic               relu,
    output logic signed [23:0] z
);
  logic signed [24:0] sum;
  logic signed [23:0] fitting;
  assign sum = 25'(scaled) + 25'(bias) + $signed({24'b0, round});
  assign fitting = sum[23:0];
  always_comb begin
    if (relu && sum < 0) z = '0;
    else if (sum > 25'sd8388607) z = 24'sd8388607;
    else if (sum < -25'sd8388607) z = -24'sd8388607;
    else z = fitting;
  end
endmodule
