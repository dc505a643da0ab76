`timescale 1ns / 1ps
// vector_mac: one lane. Weight register, dot_product and scale_product into registers, scale_multiply into a
// register where the scheme has scales, accumulator.
// docs/timing.md (Issue): a step issued at t loads the operand registers in t+1, `dot` and `scale`
// in t+2, `product` in t+3 (with scales), and adds in t+3 or t+4.
// A gated step (docs/counts.md) switches nothing here; its product counts as zero. With GATING the lane knows
// itself which steps are `live`, their product maybe other than zero; the others hold dot, scale and product
// registers, and with 2 also the operand of the dot product, for which the scale product is made in t+1.
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
    parameter int GATING = 0,  // 0 none, 1 multiply, 2 dot
    parameter int WEIGHT_WORD_BITS = VECTOR_SIZE * WEIGHT_BITS + WEIGHT_SCALE_BITS,
    parameter int AS_PORT = ACTIVATION_SCALE_BITS > 0 ? ACTIVATION_SCALE_BITS : 1
) (
    input logic clk,
    // t+1
    input logic weight_load,
    input logic [WEIGHT_WORD_BITS-1:0] weight_word,  // {scale, code V-1, ..., code 0}
    // t+2; with GATING 2 t+1, straight from the buffer
    input logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] activations,
    input logic [AS_PORT-1:0] activation_scale,
    input logic dot_enable,
    // t+2
    input logic activation_signed,
    // t+3, only with scales and without gating
    input logic product_enable,
    // the cycle of the write
    input logic product_zero,  // with gating of a first step, which adds zero where it is not live
    input logic signed [ACCUMULATOR_BITS-1:0] psum,
    output logic signed [ACCUMULATOR_BITS-1:0] psum_next,
    output logic overflow,
    output logic live_before,  // of the step that writes in the next cycle
    output logic live
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

  // t+2.
  logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] operand;
  logic load, scale_zero;  // dot and scale register take the step
  if (GATING == 2) begin : operand_of_lane
    logic live_now, loaded;
    logic weight_live_register, weight_live_now;
    logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] operand_register;
    assign weight_live_now = weight_load ? weight_live : weight_live_register;
    assign live_now = dot_enable && weight_live_now && !scale_zero;
    always_ff @(posedge clk) begin
      if (weight_load) weight_live_register <= weight_live;
      if (live_now) operand_register <= activations;
      loaded <= live_now;
    end
    assign operand = operand_register;
    assign load = loaded;
  end else if (GATING == 1) begin : gated
    logic weight_live_register;
    always_ff @(posedge clk) begin
      if (weight_load) weight_live_register <= weight_live;
    end
    assign operand = activations;
    assign load = dot_enable && weight_live_register && !scale_zero;
  end else begin : shared
    assign operand = activations;
    assign load = dot_enable;
    logic unused_zero;
    assign unused_zero = &{1'b0, scale_zero};
  end

  logic signed [DOT_BITS-1:0] dot, dot_register;
  dot_product #(
      .VECTOR_SIZE(VECTOR_SIZE),
      .WEIGHT_BITS(WEIGHT_BITS),
      .ACTIVATION_BITS(ACTIVATION_BITS),
      .ACTIVATION_SIGN(ACTIVATION_SIGN)
  ) dot_product (
      .weights(weight_register[CODE_BITS-1:0]),
      .activations(operand),
      .activation_signed(activation_signed),
      .dot(dot)
  );
  always_ff @(posedge clk) begin
    if (load) dot_register <= dot;
  end

  logic load_product, product_is_zero, own_overflow;
  if (GATING > 0) begin : lines
    logic [2:1] line;  // one and two cycles after `load`
    always_ff @(posedge clk) line <= {line[1], load};
    assign live_before = SCALE_BITS > 0 ? line[1] : load;
    assign live = SCALE_BITS > 0 ? line[2] : line[1];
    assign load_product = live_before;
    assign product_is_zero = product_zero && !live;
    assign overflow = own_overflow && live;
    logic unused;
    assign unused = &{1'b0, product_enable, line};
  end else begin : no_lines
    assign live_before = 1'b1;
    assign live = 1'b1;
    assign load_product = product_enable;
    assign product_is_zero = product_zero;
    assign overflow = own_overflow;
  end

  logic signed [PRODUCT_BITS-1:0] product;
  if (SCALE_BITS > 0) begin : scaled
    logic [SCALE_BITS-1:0] scale, scale_in_time, scale_register;
    logic signed [PRODUCT_BITS-1:0] scaled_dot, product_register;
    logic [(WEIGHT_SCALE_BITS > 0 ? WEIGHT_SCALE_BITS : 1)-1:0] weight_scale;
    if (WEIGHT_SCALE_BITS > 0) begin : own
      assign weight_scale = (GATING == 2 && weight_load) ? weight_word[WEIGHT_WORD_BITS-1:CODE_BITS]
          : weight_register[WEIGHT_WORD_BITS-1:CODE_BITS];
    end else begin : none
      assign weight_scale = 1'b1;
    end
    scale_product #(
        .WEIGHT_SCALE_BITS(WEIGHT_SCALE_BITS),
        .ACTIVATION_SCALE_BITS(ACTIVATION_SCALE_BITS),
        .SCALE_BITS(SCALE_BITS)
    ) scale_product (
        .weight_scale(weight_scale),
        .activation_scale(activation_scale),
        .scale(scale)
    );
    scale_multiply #(
        .DOT_BITS(DOT_BITS),
        .SCALE_BITS(SCALE_BITS)
    ) scale_multiply (
        .dot(dot_register),
        .scale(scale_register),
        .product(scaled_dot)
    );
    // A product of two scales other than 0 is 0 only where it is rounded.
    assign scale_zero = SCALE_BITS < WEIGHT_SCALE_BITS + ACTIVATION_SCALE_BITS && scale == '0;
    if (GATING == 2) begin : early
      logic [SCALE_BITS-1:0] early_register;
      always_ff @(posedge clk) begin
        if (dot_enable && !scale_zero) early_register <= scale;
      end
      assign scale_in_time = early_register;
    end else begin : direct
      assign scale_in_time = scale;
    end
    always_ff @(posedge clk) begin
      if (load) scale_register <= scale_in_time;
      if (load_product) product_register <= scaled_dot;
    end
    assign product = product_is_zero ? '0 : product_register;
  end else begin : unscaled
    assign product = product_is_zero ? '0 : dot_register;
    assign scale_zero = 1'b0;
    logic unused;
    assign unused = &{1'b0, activation_scale, product_enable, load_product};
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
      .overflow(own_overflow)
  );
endmodule
