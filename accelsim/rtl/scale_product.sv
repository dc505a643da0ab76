`timescale 1ns / 1ps
// scale_product: ws * as, rounded to SCALE_BITS by :spN; combinational.
// docs/numerics.md (`sp`, `:spN`). A missing side (0 bits) is the factor 1.
module scale_product #(
    parameter int WEIGHT_SCALE_BITS = 4,
    parameter int ACTIVATION_SCALE_BITS = 4,
    parameter int SCALE_BITS = WEIGHT_SCALE_BITS + ACTIVATION_SCALE_BITS,
    parameter int WS_PORT = WEIGHT_SCALE_BITS > 0 ? WEIGHT_SCALE_BITS : 1,
    parameter int AS_PORT = ACTIVATION_SCALE_BITS > 0 ? ACTIVATION_SCALE_BITS : 1
) (
    input  logic [   WS_PORT-1:0] weight_scale,
    input  logic [   AS_PORT-1:0] activation_scale,
    output logic [SCALE_BITS-1:0] scale
);
  localparam int FULL_BITS = WEIGHT_SCALE_BITS + ACTIVATION_SCALE_BITS;
  localparam int SHIFT = FULL_BITS - SCALE_BITS;

  logic [FULL_BITS-1:0] full;
  if (WEIGHT_SCALE_BITS > 0 && ACTIVATION_SCALE_BITS > 0) begin : both
    assign full = FULL_BITS'(weight_scale) * FULL_BITS'(activation_scale);
  end else if (WEIGHT_SCALE_BITS > 0) begin : weight_only
    assign full = weight_scale;
  end else begin : activation_only
    assign full = activation_scale;
  end

  if (SHIFT > 0) begin : rounded
    localparam logic [FULL_BITS:0] HALF = (FULL_BITS + 1)'(1) << (SHIFT - 1);
    logic [FULL_BITS:0] sum;
    assign sum = {1'b0, full} + HALF;
    // Bit FULL_BITS is set only when rounding up left the N bits: then the largest value is taken.
    assign scale = sum[FULL_BITS] ? '1 : sum[FULL_BITS-1:SHIFT];
    logic unused;
    assign unused = &{1'b0, sum[SHIFT-1:0]};
  end else begin : exact
    assign scale = full;
  end

  logic unused_side;
  assign unused_side = &{1'b0, weight_scale, activation_scale};
endmodule
