`timescale 1ns / 1ps
// scale_multiply: product = dot * sp, signed by unsigned; combinational.
// docs/numerics.md (`product`).
module scale_multiply #(
    parameter int DOT_BITS = 12,
    parameter int SCALE_BITS = 8,
    parameter int PRODUCT_BITS = DOT_BITS + SCALE_BITS
) (
    input  logic signed [    DOT_BITS-1:0] dot,
    input  logic        [  SCALE_BITS-1:0] scale,
    output logic signed [PRODUCT_BITS-1:0] product
);
  assign product = PRODUCT_BITS'(dot) * $signed(PRODUCT_BITS'({1'b0, scale}));
endmodule
