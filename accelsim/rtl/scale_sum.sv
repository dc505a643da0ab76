`timescale 1ns / 1ps
// scale_sum: by how much `align` shifts, from the exponents of both scales and the layer's constant; made in the
// first of STAGES cycles (`enable` bit k loads the registers after stage k).
// docs/numerics.md (Block formats, `s`): amount = N - s, limited to what makes a difference, 0 to LIMIT.
module scale_sum #(
    parameter int SCALE_KIND = 1,  // 1 e8m0, 2 e4m3
    parameter int LIMIT = 49,
    parameter int STAGES = 1,
    parameter int ENABLES = STAGES > 1 ? STAGES - 1 : 1,
    parameter int AMOUNT_BITS = $clog2(LIMIT + 1)
) (
    input  logic                          clk,
    input  logic        [    ENABLES-1:0] enable,
    input  logic signed [           11:0] align_constant,  // N + q - lw - la + 254 (e8m0) or 20 (e4m3)
    input  logic        [            7:0] weight_scale,
    input  logic        [            7:0] activation_scale,
    output logic        [AMOUNT_BITS-1:0] amount
);
  logic [7:0] weight_exponent, activation_exponent;
  if (SCALE_KIND == 1) begin : powers
    assign weight_exponent = weight_scale;
    assign activation_exponent = activation_scale;
  end else begin : floats  // that of a subnormal is the exponent of code 8
    assign weight_exponent = {4'b0, weight_scale[6:3]} | 8'(weight_scale[6:3] == '0);
    assign activation_exponent = {4'b0, activation_scale[6:3]} | 8'(activation_scale[6:3] == '0);
    logic unused;
    assign unused = &{1'b0, weight_scale, activation_scale};
  end

  logic signed [12:0] sum;
  logic [AMOUNT_BITS-1:0] limited;
  assign sum = 13'(align_constant) - $signed({5'b0, weight_exponent}) - $signed({5'b0, activation_exponent});
  assign limited = sum < 0 ? '0 : sum > 13'(LIMIT) ? AMOUNT_BITS'(LIMIT) : sum[AMOUNT_BITS-1:0];

  if (STAGES == 1) begin : at_once
    assign amount = limited;
    logic unused;
    assign unused = &{1'b0, clk, enable};
  end else begin : in_stages
    logic [(STAGES-1)*AMOUNT_BITS-1:0] line;
    always_ff @(posedge clk) begin
      for (int k = 0; k < STAGES - 1; k++) begin
        if (enable[k]) begin
          line[k*AMOUNT_BITS+:AMOUNT_BITS] <= k == 0 ? limited : line[(k==0?0 : k-1)*AMOUNT_BITS+:AMOUNT_BITS];
        end
      end
    end
    assign amount = line[(STAGES-2)*AMOUNT_BITS+:AMOUNT_BITS];
  end
endmodule
