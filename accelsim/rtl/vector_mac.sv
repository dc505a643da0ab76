`timescale 1ns / 1ps
// vector_mac: one lane. Weight register, a block_product for each block of a word, block_sum, accumulator.
// docs/timing.md (Issue): a step issued at t loads the operand registers in t+1, `dot` and `scale` after
// DOT_STAGES cycles from t+2 on, `product` SCALE_STAGES later (with scales), of more than two blocks their sum in two
// words a cycle after that, and adds in the cycle after.
// A gated step (docs/counts.md) switches nothing here; its product counts as zero. With GATING the lane knows
// itself which steps are `live`, their product maybe other than zero; the others hold dot, scale and product
// registers, and with 2 also the operand of the dot product, for which the scale product is made in t+1.
module vector_mac #(
    parameter int VECTOR_SIZE = 16,
    parameter int BLOCKS = 1,  // with a scale each, in a word
    parameter int WEIGHT_BITS = 4,
    parameter int WEIGHT_EXPONENT_BITS = 0,  // of its element; 0: integers
    parameter int ACTIVATION_BITS = 4,  // of an activation's value
    parameter int ACTIVATION_SIGN = 2,
    parameter int WEIGHT_SCALE_BITS = 4,
    parameter int ACTIVATION_SCALE_BITS = 4,
    parameter int SCALE_KIND = 0,  // 0 integers or none, 1 e8m0, 2 e4m3
    parameter int SCALE_BITS = 8,  // of what multiplies: the scale product after :spN, of e4m3 of significands; or 0
    parameter int PRODUCT_SHIFT = 0,
    parameter int ACCUMULATOR_BITS = 24,
    parameter bit SATURATE = 1'b1,
    parameter bit ALIGN_NEAREST = 1'b1,
    parameter int GATING = 0,  // 0 none, 1 multiply, 2 dot
    parameter int DOT_STAGES = 1,
    parameter int SCALE_STAGES = 1,  // only with scales
    parameter int PRODUCT_STAGES = DOT_STAGES + (SCALE_KIND > 0 || SCALE_BITS > 0 ? SCALE_STAGES : 0),
    parameter int STAGES = PRODUCT_STAGES + (BLOCKS > 2 ? 1 : 0),
    parameter int WEIGHT_WORD_BITS = VECTOR_SIZE * WEIGHT_BITS + BLOCKS * WEIGHT_SCALE_BITS,
    parameter int AS_PORT = ACTIVATION_SCALE_BITS > 0 ? ACTIVATION_SCALE_BITS : 1
) (
    input logic clk,
    // t+1
    input logic weight_load,
    input logic [WEIGHT_WORD_BITS-1:0] weight_word,  // {scale n-1, ..., scale 0, code V-1, ..., code 0}
    input logic word_enable,  // a step whose input word can contribute
    // t+2; with GATING 2 t+1, straight from the buffer
    input logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] activations,
    input logic [BLOCKS*AS_PORT-1:0] activation_scales,
    // t+2
    input logic activation_signed,
    input logic signed [11:0] align_constant,
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
  localparam int VALUES = VECTOR_SIZE / BLOCKS;
  localparam int OPERAND_BITS = ACTIVATION_BITS + (ACTIVATION_SIGN == 2 ? 1 : 0);
  localparam int CODE_BITS = VECTOR_SIZE * WEIGHT_BITS;
  localparam int VALUE_BITS = WEIGHT_EXPONENT_BITS > 0
      ? WEIGHT_BITS - 1 - WEIGHT_EXPONENT_BITS + (1 << WEIGHT_EXPONENT_BITS) : WEIGHT_BITS;
  localparam int DOT_BITS = VALUE_BITS + OPERAND_BITS + $clog2(VALUES);
  localparam int PRODUCT_BITS = SCALE_KIND > 0 ? ACCUMULATOR_BITS + 2 : DOT_BITS + SCALE_BITS;
  localparam int WS_PORT = WEIGHT_SCALE_BITS > 0 ? WEIGHT_SCALE_BITS : 1;

  // A weight vector that cannot contribute is loaded as zeros: multipliers with a constant zero are still.
  logic weight_live;
  logic [VECTOR_SIZE*VALUE_BITS-1:0] weight_values, weight_register;
  logic [BLOCKS*WS_PORT-1:0] weight_scales, weight_scale_register;
  logic [BLOCKS-1:0] block_live;
  element_decode #(
      .VALUES(VECTOR_SIZE),
      .BITS(WEIGHT_BITS),
      .EXPONENT_BITS(WEIGHT_EXPONENT_BITS)
  ) element_decode (
      .codes (weight_word[CODE_BITS-1:0]),
      .values(weight_values)
  );
  if (WEIGHT_SCALE_BITS > 0) begin : with_scales
    assign weight_scales = weight_word[WEIGHT_WORD_BITS-1:CODE_BITS];
    always_ff @(posedge clk) begin
      if (weight_load) weight_scale_register <= weight_live ? weight_scales : '0;
    end
  end else begin : without_scales
    assign weight_scales = '1;
    assign weight_scale_register = '1;
  end
  for (genvar b = 0; b < BLOCKS; b++) begin : blocks_live
    // A code with an exponent is 0 whatever its sign, an e8m0 scale never.
    logic [VALUES-1:0] nonzero;
    for (genvar v = 0; v < VALUES; v++) begin : codes
      localparam int AT = (b * VALUES + v) * WEIGHT_BITS;
      assign nonzero[v] = weight_word[AT+:WEIGHT_BITS-(WEIGHT_EXPONENT_BITS>0?1 : 0)] != '0;
    end
    assign block_live[b] = nonzero != '0 && (SCALE_KIND == 1 || weight_scales[b*WS_PORT+:WS_PORT] != '0);
  end
  assign weight_live = block_live != '0;
  always_ff @(posedge clk) begin
    if (weight_load) weight_register <= weight_live ? weight_values : '0;
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

  // Products of the word's blocks.
  logic [BLOCKS-1:0] scale_zeros;
  logic [BLOCKS*PRODUCT_BITS-1:0] products;
  for (genvar b = 0; b < BLOCKS; b++) begin : blocks
    logic [WS_PORT-1:0] weight_scale;
    assign weight_scale = GATING == 2 && weight_load ? weight_scales[b*WS_PORT+:WS_PORT]
        : weight_scale_register[b*WS_PORT+:WS_PORT];
    block_product #(
        .VALUES(VALUES),
        .WEIGHT_BITS(VALUE_BITS),
        .ACTIVATION_BITS(ACTIVATION_BITS),
        .ACTIVATION_SIGN(ACTIVATION_SIGN),
        .WEIGHT_SCALE_BITS(WEIGHT_SCALE_BITS),
        .ACTIVATION_SCALE_BITS(ACTIVATION_SCALE_BITS),
        .SCALE_KIND(SCALE_KIND),
        .SCALE_BITS(SCALE_BITS),
        .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
        .ALIGN_NEAREST(ALIGN_NEAREST),
        .SCALE_EARLY(GATING == 2),
        .DOT_STAGES(DOT_STAGES),
        .SCALE_STAGES(SCALE_STAGES)
    ) block_product (
        .clk(clk),
        .weights(weight_register[b*VALUES*VALUE_BITS+:VALUES*VALUE_BITS]),
        .activations(operand[b*VALUES*ACTIVATION_BITS+:VALUES*ACTIVATION_BITS]),
        .activation_signed(activation_signed),
        .align_constant(align_constant),
        .weight_scale(weight_scale),
        .activation_scale(activation_scales[b*AS_PORT+:AS_PORT]),
        .scale_enable(word_enable && !scale_zero),
        .stores(stores[PRODUCT_STAGES-1:0]),
        .load(load),
        .scale_zero(scale_zeros[b]),
        .product(products[b*PRODUCT_BITS+:PRODUCT_BITS])
    );
  end
  assign scale_zero = scale_zeros == '1;

  // What is added: the product of one block, which the accumulator rounds, or words of the sum of several.
  localparam int WORDS = BLOCKS > 1 ? 2 : 1;
  localparam int ROUNDED_BITS = PRODUCT_SHIFT == 0 ? PRODUCT_BITS
      : (PRODUCT_BITS > PRODUCT_SHIFT ? PRODUCT_BITS : PRODUCT_SHIFT) + 1;
  localparam int BLOCKS_BITS = ROUNDED_BITS + $clog2(BLOCKS);
  localparam int WORD_BITS = BLOCKS == 1 ? PRODUCT_BITS : (BLOCKS_BITS > ACCUMULATOR_BITS ? BLOCKS_BITS : ACCUMULATOR_BITS) + 1;
  logic [WORDS*WORD_BITS-1:0] words;
  if (BLOCKS == 1) begin : one_block
    assign words = products;
  end else begin : several_blocks
    block_sum #(
        .BLOCKS(BLOCKS),
        .PRODUCT_BITS(PRODUCT_BITS),
        .PRODUCT_SHIFT(PRODUCT_SHIFT),
        .BITS(WORD_BITS)
    ) block_sum (
        .clk(clk),
        .enable(stores[STAGES-1]),
        .products(products),
        .words(words)
    );
  end

  accumulator #(
      .PRODUCT_BITS(WORD_BITS),
      .WORDS(WORDS),
      .PRODUCT_SHIFT(BLOCKS == 1 ? PRODUCT_SHIFT : 0),
      .ACCUMULATOR_BITS(ACCUMULATOR_BITS),
      .SATURATE(SATURATE)
  ) accumulator (
      .product(product_is_zero ? '0 : words),
      .psum(psum),
      .psum_next(psum_next),
      .overflow(own_overflow)
  );
endmodule
