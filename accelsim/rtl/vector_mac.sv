`timescale 1ns / 1ps
// vector_mac: one lane. Weight register, dot_product and scale_product into registers, scale_multiply into a
// register where the scheme has scales, accumulator.
// docs/timing.md (Issue): a step issued at t loads the operand registers in t+1, `dot` and `scale` after
// DOT_STAGES cycles from t+2 on, `product` SCALE_STAGES later (with scales), and adds in the cycle after.
// A gated step (docs/counts.md) switches nothing here; its product counts as zero.
module vector_mac #(
    parameter int VECTOR_SIZE = 16,
    parameter int WEIGHT_BITS = 4,
    parameter int ACTIVATION_BITS = 4,
    parameter int ACTIVATION_SIGN = 2,
    parameter int WEIGHT_SCALE_BITS = 4,
    parameter int ACTIVATION_SCALE_BITS = 4,
    parameter int SCALE_BITS = 8,  // of the scale product after :spN; 0 without scales
    parameter int PRODUCT_SHIFT = 0,
    parameter int ACCUMULATOR_BITS = 24,
    parameter bit SATURATE = 1'b1,
    parameter int DOT_STAGES = 1,
    parameter int SCALE_STAGES = 1,  // only with scales
    parameter int STAGES = DOT_STAGES + (SCALE_BITS > 0 ? SCALE_STAGES : 0),
    parameter int WEIGHT_WORD_BITS = VECTOR_SIZE * WEIGHT_BITS + WEIGHT_SCALE_BITS,
    parameter int AS_PORT = ACTIVATION_SCALE_BITS > 0 ? ACTIVATION_SCALE_BITS : 1
) (
    input logic clk,
    // t+1
    input logic weight_load,
    input logic [WEIGHT_WORD_BITS-1:0] weight_word,  // {scale, code V-1, ..., code 0}
    // t+2
    input logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] activations,
    input logic [AS_PORT-1:0] activation_scale,
    input logic activation_signed,
    // bit k, in t+2+k: a step that is not gated is in stage k, and its result is stored
    input logic [STAGES-1:0] run,
    // the cycle of the write
    input logic product_zero,
    input logic signed [ACCUMULATOR_BITS-1:0] psum,
    output logic signed [ACCUMULATOR_BITS-1:0] psum_next,
    output logic overflow
);
  localparam int OPERAND_BITS = ACTIVATION_BITS + (ACTIVATION_SIGN == 2 ? 1 : 0);
  localparam int DOT_BITS = WEIGHT_BITS + OPERAND_BITS + $clog2(VECTOR_SIZE);
  localparam int PRODUCT_BITS = DOT_BITS + SCALE_BITS;
  localparam int CODE_BITS = VECTOR_SIZE * WEIGHT_BITS;

  // A weight vector that cannot contribute is loaded as zeros: multipliers with a constant zero are still.
  logic weight_live;
  logic [WEIGHT_WORD_BITS-1:0] weight_register;
  if (WEIGHT_SCALE_BITS > 0) begin : live_with_scale
    assign weight_live =
        (weight_word[CODE_BITS-1:0] != '0) && (weight_word[WEIGHT_WORD_BITS-1:CODE_BITS] != '0);
  end else begin : live_without_scale
    assign weight_live = weight_word != '0;
  end
  always_ff @(posedge clk) begin
    if (weight_load) weight_register <= weight_live ? weight_word : '0;
  end

  logic signed [DOT_BITS-1:0] dot, dot_register;
  dot_product #(
      .VECTOR_SIZE(VECTOR_SIZE),
      .WEIGHT_BITS(WEIGHT_BITS),
      .ACTIVATION_BITS(ACTIVATION_BITS),
      .ACTIVATION_SIGN(ACTIVATION_SIGN),
      .STAGES(DOT_STAGES)
  ) dot_product (
      .clk(clk),
      .enable(run[(DOT_STAGES > 1 ? DOT_STAGES - 2 : 0):0]),
      .weights(weight_register[CODE_BITS-1:0]),
      .activations(activations),
      .activation_signed(activation_signed),
      .dot(dot)
  );
  always_ff @(posedge clk) begin
    if (run[DOT_STAGES-1]) dot_register <= dot;
  end

  logic signed [PRODUCT_BITS-1:0] product;
  if (SCALE_BITS > 0) begin : scaled
    logic [SCALE_BITS-1:0] scale, scale_register;
    logic signed [PRODUCT_BITS-1:0] scaled_dot, product_register;
    logic [(WEIGHT_SCALE_BITS > 0 ? WEIGHT_SCALE_BITS : 1)-1:0] weight_scale;
    if (WEIGHT_SCALE_BITS > 0) begin : own
      assign weight_scale = weight_register[WEIGHT_WORD_BITS-1:CODE_BITS];
    end else begin : none
      assign weight_scale = 1'b1;
    end
    scale_product #(
        .WEIGHT_SCALE_BITS(WEIGHT_SCALE_BITS),
        .ACTIVATION_SCALE_BITS(ACTIVATION_SCALE_BITS),
        .SCALE_BITS(SCALE_BITS),
        .STAGES(DOT_STAGES)
    ) scale_product (
        .clk(clk),
        .enable(run[(DOT_STAGES > 1 ? DOT_STAGES - 2 : 0):0]),
        .weight_scale(weight_scale),
        .activation_scale(activation_scale),
        .scale(scale)
    );
    scale_multiply #(
        .DOT_BITS(DOT_BITS),
        .SCALE_BITS(SCALE_BITS),
        .STAGES(SCALE_STAGES)
    ) scale_multiply (
        .clk(clk),
        .enable(run[DOT_STAGES+(SCALE_STAGES > 1 ? SCALE_STAGES - 2 : 0):DOT_STAGES]),
        .dot(dot_register),
        .scale(scale_register),
        .product(scaled_dot)
    );
    always_ff @(posedge clk) begin
      if (run[DOT_STAGES-1]) scale_register <= scale;
      if (run[STAGES-1]) product_register <= scaled_dot;
    end
    assign product = product_zero ? '0 : product_register;
  end else begin : unscaled
    assign product = product_zero ? '0 : dot_register;
    logic unused;
    assign unused = &{1'b0, activation_scale};
  end

  accumulator #(
      .PRODUCT_BITS(PRODUCT_BITS),
      .PRODUCT_SHIFT(PRODUCT_SHIFT),
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .SATURATE(SATURATE)
  ) accumulator (
      .product(product),
      .psum(psum),
      .psum_next(psum_next),
      .overflow(overflow)
  );
endmodule
