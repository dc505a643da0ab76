`timescale 1ns / 1ps
// accumulator: psum + (rounded) product, limited to ACCUMULATOR_BITS; combinational.
// docs/numerics.md (`product_shift`, `psum`, `overflow`).
module accumulator #(
    parameter int PRODUCT_BITS = 20,
    parameter int PRODUCT_SHIFT = 0,
    parameter int ACCUMULATOR_BITS = 24,
    parameter bit SATURATE = 1'b1  // 0: wrap
) (
    input  logic signed [    PRODUCT_BITS-1:0] product,
    input  logic signed [ACCUMULATOR_BITS-1:0] psum,
    output logic signed [ACCUMULATOR_BITS-1:0] psum_next,
    output logic                               overflow
);
  // Room for the product and its rounding half, whatever the shift.
  localparam int ADDEND_BITS = (PRODUCT_BITS > PRODUCT_SHIFT ? PRODUCT_BITS : PRODUCT_SHIFT) + 1;
  localparam int SUM_BITS = (ADDEND_BITS > ACCUMULATOR_BITS ? ADDEND_BITS : ACCUMULATOR_BITS) + 1;
  localparam int OVER_BITS = SUM_BITS - ACCUMULATOR_BITS + 1;

  logic signed [ADDEND_BITS-1:0] addend;
  if (PRODUCT_SHIFT > 0) begin : rounded
    localparam logic signed [ADDEND_BITS-1:0] HALF = ADDEND_BITS'(1) << (PRODUCT_SHIFT - 1);
    assign addend = (ADDEND_BITS'(product) + HALF) >>> PRODUCT_SHIFT;
  end else begin : exact
    assign addend = ADDEND_BITS'(product);
  end

  logic signed [SUM_BITS-1:0] sum;
  assign sum = SUM_BITS'(psum) + SUM_BITS'(addend);

  // The sum fits when all bits from the accumulator's sign bit up are equal.
  logic [OVER_BITS-1:0] over;
  assign over = sum[SUM_BITS-1:ACCUMULATOR_BITS-1];
  assign overflow = (over != '0) && (over != '1);

  assign psum_next = (SATURATE && overflow)
      ? {sum[SUM_BITS-1], {(ACCUMULATOR_BITS - 1) {~sum[SUM_BITS-1]}}} : sum[ACCUMULATOR_BITS-1:0];
endmodule
