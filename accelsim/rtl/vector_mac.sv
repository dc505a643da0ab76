`timescale 1ns / 1ps
// vector_mac: one lane. Weight register, dot_product and scale_product into registers, scale_multiply into a
// register where the scheme has scales, accumulator.
// docs/timing.md (Issue): a step issued at t loads the operand registers in t+1, `dot` and `scale` after
// DOT_STAGES cycles from t+2 on, `product` SCALE_STAGES later (with scales), and adds in the cycle after.
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
    input logic word_enable,  // a step whose input word can contribute
    // t+2; with GATING 2 t+1, straight from the buffer
    input logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] activations,
    input logic [AS_PORT-1:0] activation_scale,
    // t+2
    input logic activation_signed,
    // bit k, in t+2+k: a step whose input word can contribute is in stage k
    input logic [STAGES-1:0] run,
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

  // `stores` bit k, in t+2+k: the step in stage k is one whose result this lane stores.
  logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] operand;
  logic [STAGES-1:0] stores;
  logic scale_zero;  // of the step whose scale product is made
  if (GATING == 2) begin : operand_of_lane
    logic live_now, weight_live_register, weight_live_now;
    logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] operand_register;
    assign weight_live_now = weight_load ? weight_live : weight_live_register;
    assign live_now = word_enable && weight_live_now && !scale_zero;
    always_ff @(posedge clk) begin
      if (weight_load) weight_live_register <= weight_live;
      if (live_now) operand_register <= activations;
      stores <= STAGES'({stores, live_now});
    end
    assign operand = operand_register;
    logic unused_run;
    assign unused_run = &{1'b0, run};
  end else if (GATING == 1) begin : gated
    // Stages of the dot product and the scale product run for every word; what follows only for live ones.
    logic [DOT_STAGES-1:0] weight_live_at;  // bit k: of the step in stage k
    always_ff @(posedge clk) begin
      if (weight_load) weight_live_at[0] <= weight_live;
      for (int k = 1; k < DOT_STAGES; k++) weight_live_at[k] <= weight_live_at[k-1];
    end
    assign stores[DOT_STAGES-1:0] = run[DOT_STAGES-1:0];
    assign operand = activations;
    if (STAGES > DOT_STAGES) begin : later
      logic [STAGES-DOT_STAGES-1:0] line;
      always_ff @(posedge clk) line <= (STAGES - DOT_STAGES)'({line, load});
      assign stores[STAGES-1:DOT_STAGES] = line;
    end
    logic unused_word;
    assign unused_word = &{1'b0, word_enable, run, weight_live_at};
  end else begin : shared
    assign operand = activations;
    assign stores = run;
    logic unused_zero;
    assign unused_zero = &{1'b0, scale_zero, word_enable};
  end

  // Dot and scale register take the step.
  logic load;
  if (GATING == 1) begin : load_if_live
    assign load = run[DOT_STAGES-1] && gated.weight_live_at[DOT_STAGES-1] && !scale_zero;
  end else begin : load_all
    assign load = stores[DOT_STAGES-1];
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
      .enable(stores[(DOT_STAGES > 1 ? DOT_STAGES - 2 : 0):0]),
      .weights(weight_register[CODE_BITS-1:0]),
      .activations(operand),
      .activation_signed(activation_signed),
      .dot(dot)
  );
  always_ff @(posedge clk) begin
    if (load) dot_register <= dot;
  end

  logic product_is_zero, own_overflow;
  if (GATING > 0) begin : lines
    logic write_next;
    assign live_before = STAGES > DOT_STAGES ? stores[STAGES-1] : load;
    always_ff @(posedge clk) write_next <= live_before;
    assign live = write_next;
    assign product_is_zero = product_zero && !live;
    assign overflow = own_overflow && live;
  end else begin : no_lines
    assign live_before = 1'b1;
    assign live = 1'b1;
    assign product_is_zero = product_zero;
    assign overflow = own_overflow;
  end

  logic signed [PRODUCT_BITS-1:0] product;
  if (SCALE_BITS > 0) begin : scaled
    // Made early it takes one cycle, and waits.
    localparam int PRODUCT_STAGES = GATING == 2 ? 1 : DOT_STAGES;
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
        .SCALE_BITS(SCALE_BITS),
        .STAGES(PRODUCT_STAGES)
    ) scale_product (
        .clk(clk),
        .enable(stores[(PRODUCT_STAGES > 1 ? PRODUCT_STAGES - 2 : 0):0]),
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
        .enable(stores[DOT_STAGES+(SCALE_STAGES > 1 ? SCALE_STAGES - 2 : 0):DOT_STAGES]),
        .dot(dot_register),
        .scale(scale_register),
        .product(scaled_dot)
    );
    // A product of two scales other than 0 is 0 only where it is rounded.
    assign scale_zero = SCALE_BITS < WEIGHT_SCALE_BITS + ACTIVATION_SCALE_BITS && scale == '0;
    if (GATING == 2) begin : early
      logic [DOT_STAGES*SCALE_BITS-1:0] waiting;  // made in t+1; entry k is used in t+2+k
      always_ff @(posedge clk) begin
        if (word_enable && !scale_zero) waiting[0+:SCALE_BITS] <= scale;
        for (int k = 1; k < DOT_STAGES; k++) begin
          if (stores[k-1]) waiting[k*SCALE_BITS+:SCALE_BITS] <= waiting[(k-1)*SCALE_BITS+:SCALE_BITS];
        end
      end
      assign scale_in_time = waiting[(DOT_STAGES-1)*SCALE_BITS+:SCALE_BITS];
    end else begin : direct
      assign scale_in_time = scale;
    end
    always_ff @(posedge clk) begin
      if (load) scale_register <= scale_in_time;
      if (stores[STAGES-1]) product_register <= scaled_dot;
    end
    assign product = product_is_zero ? '0 : product_register;
  end else begin : unscaled
    assign product = product_is_zero ? '0 : dot_register;
    assign scale_zero = 1'b0;
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
      .overflow(own_overflow)
  );
endmodule
