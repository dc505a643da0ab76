`timescale 1ns / 1ps
// block_product: what one block adds to a psum, in its register: dot_product and beside it what its scales give into
// registers, then of integers with scales scale_multiply into a register, of block formats align (e8m0) or
// scale_multiply and align (e4m3).
// docs/numerics.md (`dot`, `sp`, `product`; Block formats, `x`, `s`, `term`). `stores` bit k: the registers at the end of stage k take the step, of
// which `load` is that of dot and scale product, the last of DOT_STAGES.
module block_product #(
    parameter int VALUES = 16,  // codes of the block, or of a word's part of it
    parameter int WEIGHT_BITS = 4,
    parameter int ACTIVATION_BITS = 4,
    parameter int ACTIVATION_SIGN = 2,
    parameter int WEIGHT_SCALE_BITS = 4,
    parameter int ACTIVATION_SCALE_BITS = 4,
    parameter int SCALE_KIND = 0,  // 0 integers or none, 1 e8m0, 2 e4m3
    parameter int SCALE_BITS = 8,  // of what multiplies: the scale product after :spN, of e4m3 of significands; or 0
    parameter int ACCUMULATOR_BITS = 24,
    parameter bit ALIGN_NEAREST = 1'b1,
    parameter bit SCALE_EARLY = 1'b0,  // the scale product is made in the cycle before the dot product's first
    parameter int DOT_STAGES = 1,
    parameter int SCALE_STAGES = 1,  // only with scales
    parameter int STAGES = DOT_STAGES + (SCALE_KIND > 0 || SCALE_BITS > 0 ? SCALE_STAGES : 0),
    parameter int WS_PORT = WEIGHT_SCALE_BITS > 0 ? WEIGHT_SCALE_BITS : 1,
    parameter int AS_PORT = ACTIVATION_SCALE_BITS > 0 ? ACTIVATION_SCALE_BITS : 1,
    parameter int OPERAND_BITS = ACTIVATION_BITS + (ACTIVATION_SIGN == 2 ? 1 : 0),
    parameter int DOT_BITS = WEIGHT_BITS + OPERAND_BITS + $clog2(VALUES),
    parameter int PRODUCT_BITS = SCALE_KIND > 0 ? ACCUMULATOR_BITS + 2 : DOT_BITS + SCALE_BITS
) (
    input  logic                                  clk,
    // t+2
    input  logic        [ VALUES*WEIGHT_BITS-1:0] weights,
    input  logic        [VALUES*ACTIVATION_BITS-1:0] activations,
    input  logic                                  activation_signed,
    input  logic signed [                   11:0] align_constant,     // of the layer, in block formats
    // t+2, SCALE_EARLY t+1
    input  logic        [            WS_PORT-1:0] weight_scale,
    input  logic        [            AS_PORT-1:0] activation_scale,
    input  logic                                  scale_enable,       // SCALE_EARLY: the scale product is kept
    input  logic        [             STAGES-1:0] stores,
    input  logic                                  load,
    output logic                                  scale_zero,         // of the step whose scale product is made
    output logic signed [       PRODUCT_BITS-1:0] product
);
  logic signed [DOT_BITS-1:0] dot, dot_register;
  dot_product #(
      .VECTOR_SIZE(VALUES),
      .WEIGHT_BITS(WEIGHT_BITS),
      .ACTIVATION_BITS(ACTIVATION_BITS),
      .ACTIVATION_SIGN(ACTIVATION_SIGN),
      .STAGES(DOT_STAGES)
  ) dot_product (
      .clk(clk),
      .enable(stores[(DOT_STAGES > 1 ? DOT_STAGES - 2 : 0):0]),
      .weights(weights),
      .activations(activations),
      .activation_signed(activation_signed),
      .dot(dot)
  );
  always_ff @(posedge clk) begin
    if (load) dot_register <= dot;
  end

  if (SCALE_KIND > 0) begin : aligned
    localparam int X_BITS = DOT_BITS + SCALE_BITS;
    localparam int AMOUNT_BITS = $clog2(X_BITS + ACCUMULATOR_BITS + 1);
    // Cycles of the multiply and of the alignment; one cycle has both.
    localparam int MULTIPLY_STAGES = SCALE_KIND == 1 ? 0 : (SCALE_STAGES + 1) / 2;
    localparam int ALIGN_STAGES = SCALE_STAGES == 1 ? 1 : SCALE_STAGES - MULTIPLY_STAGES;
    localparam int ALIGN_AT = STAGES - ALIGN_STAGES;
    logic [AMOUNT_BITS-1:0] amount, amount_register, amount_in_time;
    logic signed [X_BITS-1:0] x;
    logic signed [PRODUCT_BITS-1:0] term, term_register;
    scale_sum #(
        .SCALE_KIND(SCALE_KIND),
        .LIMIT(X_BITS + ACCUMULATOR_BITS),
        .STAGES(DOT_STAGES)
    ) scale_sum (
        .clk(clk),
        .enable(stores[(DOT_STAGES > 1 ? DOT_STAGES - 2 : 0):0]),
        .align_constant(align_constant),
        .weight_scale(weight_scale),
        .activation_scale(activation_scale),
        .amount(amount)
    );
    always_ff @(posedge clk) begin
      if (load) amount_register <= amount;
      if (stores[STAGES-1]) term_register <= term;
    end
    if (SCALE_KIND == 1) begin : power_of_two
      assign x = dot_register;
      assign amount_in_time = amount_register;
    end else begin : multiplied
      logic [SCALE_BITS-1:0] scale, scale_register;
      logic signed [X_BITS-1:0] scaled_dot;
      scale_product #(
          .WEIGHT_SCALE_BITS(4),
          .ACTIVATION_SCALE_BITS(4),
          .STAGES(DOT_STAGES)
      ) scale_product (
          .clk(clk),
          .enable(stores[(DOT_STAGES > 1 ? DOT_STAGES - 2 : 0):0]),
          .weight_scale({weight_scale[6:3] != '0, weight_scale[2:0]}),
          .activation_scale({activation_scale[6:3] != '0, activation_scale[2:0]}),
          .scale(scale)
      );
      always_ff @(posedge clk) if (load) scale_register <= scale;
      scale_multiply #(
          .DOT_BITS(DOT_BITS),
          .SCALE_BITS(SCALE_BITS),
          .STAGES(MULTIPLY_STAGES)
      ) scale_multiply (
          .clk(clk),
          .enable(stores[DOT_STAGES+(MULTIPLY_STAGES > 1 ? MULTIPLY_STAGES - 2 : 0):DOT_STAGES]),
          .dot(dot_register),
          .scale(scale_register),
          .product(scaled_dot)
      );
      if (SCALE_STAGES == 1) begin : one_cycle
        assign x = scaled_dot;
        assign amount_in_time = amount_register;
      end else begin : cut
        logic signed [X_BITS-1:0] scaled_register;
        logic [MULTIPLY_STAGES*AMOUNT_BITS-1:0] waiting;
        always_ff @(posedge clk) begin
          if (stores[ALIGN_AT-1]) scaled_register <= scaled_dot;
          for (int k = 0; k < MULTIPLY_STAGES; k++) begin
            if (stores[DOT_STAGES+k]) begin
              waiting[k*AMOUNT_BITS+:AMOUNT_BITS] <=
                  k == 0 ? amount_register : waiting[(k==0?0 : k-1)*AMOUNT_BITS+:AMOUNT_BITS];
            end
          end
        end
        assign x = scaled_register;
        assign amount_in_time = waiting[(MULTIPLY_STAGES-1)*AMOUNT_BITS+:AMOUNT_BITS];
      end
    end
    align #(
        .X_BITS(X_BITS),
        .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
        .NEAREST(ALIGN_NEAREST),
        .STAGES(ALIGN_STAGES)
    ) align (
        .clk(clk),
        .enable(stores[ALIGN_AT+(ALIGN_STAGES > 1 ? ALIGN_STAGES - 2 : 0):ALIGN_AT]),
        .x(x),
        .amount(amount_in_time),
        .term(term)
    );
    assign product = term_register;
    assign scale_zero = 1'b0;
    logic unused;
    assign unused = &{1'b0, scale_enable, stores};
  end else if (SCALE_BITS > 0) begin : scaled
    // Made early it takes one cycle, and waits.
    localparam int PRODUCT_STAGES = SCALE_EARLY ? 1 : DOT_STAGES;
    logic [SCALE_BITS-1:0] scale, scale_in_time, scale_register;
    logic signed [PRODUCT_BITS-1:0] scaled_dot, product_register;
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
    if (SCALE_EARLY) begin : early
      logic [DOT_STAGES*SCALE_BITS-1:0] waiting;  // made in t+1; entry k is used in t+2+k
      always_ff @(posedge clk) begin
        if (scale_enable) waiting[0+:SCALE_BITS] <= scale;
        for (int k = 1; k < DOT_STAGES; k++) begin
          if (stores[k-1]) waiting[k*SCALE_BITS+:SCALE_BITS] <= waiting[(k-1)*SCALE_BITS+:SCALE_BITS];
        end
      end
      assign scale_in_time = waiting[(DOT_STAGES-1)*SCALE_BITS+:SCALE_BITS];
    end else begin : direct
      assign scale_in_time = scale;
      logic unused;
      assign unused = &{1'b0, scale_enable};
    end
    always_ff @(posedge clk) begin
      if (load) scale_register <= scale_in_time;
      if (stores[STAGES-1]) product_register <= scaled_dot;
    end
    assign product = product_register;
  end else begin : unscaled
    assign product = dot_register;
    assign scale_zero = 1'b0;
    logic unused;
    assign unused = &{1'b0, weight_scale, activation_scale, scale_enable, stores};
  end
  logic unused_constant;
  assign unused_constant = &{1'b0, align_constant};
endmodule
