`timescale 1ns / 1ps
// ppu_shift: of one lane, value + round = sat((product + 2^(t-1)) >> t); combinational.
// docs/numerics.md (PPU). `value` is the product shifted down, `round` the last bit that falls out: whoever takes
// them has an adder for `round`.
module ppu_shift #(
    parameter int PRODUCT_BITS = 40,
    parameter int OUT_BITS = 24
) (
    input  logic signed [PRODUCT_BITS-1:0] product,
    input  logic        [             5:0] shift,   // t, 1 to 63
    output logic signed [    OUT_BITS-1:0] value,
    output logic                           round
);
  localparam logic signed [PRODUCT_BITS:0] LIMIT = (PRODUCT_BITS + 1)'((1 << (OUT_BITS - 1)) - 1);
  logic signed [PRODUCT_BITS:0] twice, shifted;  // one bit after the point
  assign twice = {product, 1'b0};
  assign shifted = (twice >>> shift) >>> 1;
  logic last;
  assign last = 1'(twice >>> shift);
  always_comb begin
    value = shifted[OUT_BITS-1:0];
    round = last;
    // From this shift on |product| is at most half, and the rounded result 0.
    if (32'(shift) >= PRODUCT_BITS) begin
      value = '0;
      round = 1'b0;
    end else if (shifted >= LIMIT) begin
      value = LIMIT[OUT_BITS-1:0];
      round = 1'b0;
    end else if (shifted < -LIMIT) begin
      value = -LIMIT[OUT_BITS-1:0];
      round = 1'b0;
    end
  end
endmodule
