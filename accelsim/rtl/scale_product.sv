`timescale 1ns / 1ps
// scale_product: ws * as, rounded to SCALE_BITS by :spN; combinational, or in STAGES cycles (`enable` bit k loads
// the registers after stage k).
// docs/numerics.md (`sp`, `:spN`). A missing side (0 bits) is the factor 1.
module scale_product #(
    parameter int WEIGHT_SCALE_BITS = 4,
    parameter int ACTIVATION_SCALE_BITS = 4,
    parameter int SCALE_BITS = WEIGHT_SCALE_BITS + ACTIVATION_SCALE_BITS,
    parameter int STAGES = 1,
    parameter int ENABLES = STAGES > 1 ? STAGES - 1 : 1,
    parameter int WS_PORT = WEIGHT_SCALE_BITS > 0 ? WEIGHT_SCALE_BITS : 1,
    parameter int AS_PORT = ACTIVATION_SCALE_BITS > 0 ? ACTIVATION_SCALE_BITS : 1
) (
    input  logic                  clk,
    input  logic [   ENABLES-1:0] enable,
    input  logic [   WS_PORT-1:0] weight_scale,
    input  logic [   AS_PORT-1:0] activation_scale,
    output logic [SCALE_BITS-1:0] scale
);
  localparam int FULL_BITS = WEIGHT_SCALE_BITS + ACTIVATION_SCALE_BITS;
  localparam int SHIFT = FULL_BITS - SCALE_BITS;

  localparam bit BOTH = WEIGHT_SCALE_BITS > 0 && ACTIVATION_SCALE_BITS > 0;
  localparam int SUM_BITS = FULL_BITS + (SHIFT > 0 ? 1 : 0);
  localparam logic [SUM_BITS-1:0] HALF = SHIFT > 0 ? SUM_BITS'(1) << (SHIFT > 0 ? SHIFT - 1 : 0) : '0;

  logic [SUM_BITS-1:0] weight_factor, activation_factor, sum;
  assign weight_factor = WEIGHT_SCALE_BITS > 0 ? SUM_BITS'(weight_scale) : SUM_BITS'(1);
  assign activation_factor = ACTIVATION_SCALE_BITS > 0 ? SUM_BITS'(activation_scale) : SUM_BITS'(1);
  if (STAGES == 1) begin : at_once
    assign sum = weight_factor * activation_factor + HALF;  // a missing factor is the constant 1
  end else begin : in_stages
    // What is added for rounding is one of the rows of partial products.
    localparam int PRODUCTS = BOTH ? WEIGHT_SCALE_BITS : 1;
    logic [(PRODUCTS+1)*SUM_BITS-1:0] rows;
    if (BOTH) begin : both
      for (genvar b = 0; b < WEIGHT_SCALE_BITS; b++) begin : partial
        assign rows[b*SUM_BITS+:SUM_BITS] = weight_scale[b] ? activation_factor << b : '0;
      end
    end else begin : one
      assign rows[SUM_BITS-1:0] = WEIGHT_SCALE_BITS > 0 ? weight_factor : activation_factor;
    end
    assign rows[PRODUCTS*SUM_BITS+:SUM_BITS] = HALF;
    carry_save_sum #(
        .ROWS  (PRODUCTS + (SHIFT > 0 ? 1 : 0)),
        .BITS  (SUM_BITS),
        .STAGES(STAGES)
    ) carry_save_sum (
        .clk(clk),
        .enable(enable),
        .rows(rows[(PRODUCTS+(SHIFT>0?1:0))*SUM_BITS-1:0]),
        .sum(sum)
    );
    logic unused_rows;
    assign unused_rows = &{1'b0, rows};
  end

  if (SHIFT > 0) begin : rounded
    // The top bit is set only when rounding up left the N bits: then the largest value is taken.
    assign scale = sum[FULL_BITS] ? '1 : sum[FULL_BITS-1:SHIFT];
    logic unused;
    assign unused = &{1'b0, sum[SHIFT-1:0]};
  end else begin : exact
    assign scale = sum;
  end

  logic unused_side;
  assign unused_side = &{1'b0, weight_scale, activation_scale, weight_factor, activation_factor, clk, enable};
endmodule
