`timescale 1ns / 1ps
// scale_multiply: product = dot * sp, signed by unsigned; combinational, or in STAGES cycles.
// docs/numerics.md (`product`). `enable` bit k loads the registers after stage k.
module scale_multiply #(
    parameter int DOT_BITS = 12,
    parameter int SCALE_BITS = 8,
    parameter int STAGES = 1,
    parameter int ENABLES = STAGES > 1 ? STAGES - 1 : 1,
    parameter int PRODUCT_BITS = DOT_BITS + SCALE_BITS
) (
    input  logic                           clk,
    input  logic        [     ENABLES-1:0] enable,
    input  logic signed [    DOT_BITS-1:0] dot,
    input  logic        [  SCALE_BITS-1:0] scale,
    output logic signed [PRODUCT_BITS-1:0] product
);
  if (STAGES == 1) begin : at_once
    assign product = PRODUCT_BITS'(dot) * $signed(PRODUCT_BITS'({1'b0, scale}));
  end else begin : in_stages
    logic [SCALE_BITS*PRODUCT_BITS-1:0] rows;
    for (genvar b = 0; b < SCALE_BITS; b++) begin : partial
      assign rows[b*PRODUCT_BITS+:PRODUCT_BITS] = scale[b] ? PRODUCT_BITS'(dot) << b : '0;
    end
    carry_save_sum #(
        .ROWS  (SCALE_BITS),
        .BITS  (PRODUCT_BITS),
        .STAGES(STAGES)
    ) carry_save_sum (
        .clk(clk),
        .enable(enable),
        .rows(rows),
        .sum(product)
    );
  end
  logic unused;
  assign unused = &{1'b0, clk, enable};
endmodule
