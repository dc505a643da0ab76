`timescale 1ns / 1ps
// accumulator: psum + (rounded) product, limited to ACCUMULATOR_BITS; combinational. Of several blocks the product
// is two words, whose sum modulo 2^PRODUCT_BITS, with a psum's, is exact.
// docs/numerics.md (`product_shift`, `psum`, `overflow`).
module accumulator #(
    parameter int PRODUCT_BITS = 20,
    parameter int WORDS = 1,  // 2: without PRODUCT_SHIFT, and wider than ACCUMULATOR_BITS
    parameter int PRODUCT_SHIFT = 0,
    parameter int ACCUMULATOR_BITS = 24,
    parameter bit SATURATE = 1'b1  // 0: wrap
) (
    input  logic        [WORDS*PRODUCT_BITS-1:0] product,
    input  logic signed [  ACCUMULATOR_BITS-1:0] psum,
    output logic signed [  ACCUMULATOR_BITS-1:0] psum_next,
    output logic                                 overflow
);
  // Room for the product and its rounding half, whatever the shift.
  localparam int ADDEND_BITS = (PRODUCT_BITS > PRODUCT_SHIFT ? PRODUCT_BITS : PRODUCT_SHIFT) + 1;
  localparam int SUM_BITS = WORDS > 1 ? PRODUCT_BITS
      : (ADDEND_BITS > ACCUMULATOR_BITS ? ADDEND_BITS : ACCUMULATOR_BITS) + 1;
  localparam int OVER_BITS = SUM_BITS - ACCUMULATOR_BITS + 1;

  logic signed [SUM_BITS-1:0] sum;
  if (WORDS > 1) begin : blocks
    logic [SUM_BITS-1:0] total;
    carry_save_sum #(
        .ROWS  (1 + WORDS),
        .BITS  (SUM_BITS),
        .STAGES(1)
    ) carry_save_sum (
        .clk(1'b0),
        .enable(1'b0),
        .rows({product, SUM_BITS'(psum)}),
        .sum(total)
    );
    assign sum = total;
  end else begin : one
    logic signed [ADDEND_BITS-1:0] addend;
    if (PRODUCT_SHIFT > 0) begin : rounded
      localparam logic signed [ADDEND_BITS-1:0] HALF = ADDEND_BITS'(1) << (PRODUCT_SHIFT - 1);
      assign addend = (ADDEND_BITS'($signed(product)) + HALF) >>> PRODUCT_SHIFT;
    end else begin : exact
      assign addend = ADDEND_BITS'($signed(product));
    end
    assign sum = SUM_BITS'(psum) + SUM_BITS'(addend);
  end

  // The sum fits when all bits from the accumulator's sign bit up are equal.
  logic [OVER_BITS-1:0] over;
  assign over = sum[SUM_BITS-1:ACCUMULATOR_BITS-1];
  assign overflow = (over != '0) && (over != '1);

  assign psum_next = (SATURATE && overflow)
      ? {sum[SUM_BITS-1], {(ACCUMULATOR_BITS - 1) {~sum[SUM_BITS-1]}}} : sum[ACCUMULATOR_BITS-1:0];
endmodule
