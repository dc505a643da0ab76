`timescale 1ns / 1ps
// input_register: the activation operand of all lanes, loaded in t+1 of a step.
// docs/timing.md (padding taps inject zeros) and docs/counts.md (gated steps). A vector that cannot
// contribute (padding, all codes zero, scale zero) is not loaded: `zero` says so and the lanes' multipliers
// stay still. Not REGISTERED, the word goes on as it is: each lane has a register of its own.
module input_register #(
    parameter int VECTOR_SIZE = 16,
    parameter int BLOCKS = 1,  // with a scale each, in a word
    parameter int ACTIVATION_BITS = 4,
    parameter int EXPONENT_BITS = 0,  // of an element; 0: integers
    parameter int SCALE_KIND = 0,  // 0 integers or none, 1 e8m0, 2 e4m3
    parameter int VALUE_BITS = EXPONENT_BITS > 0
        ? ACTIVATION_BITS - 1 - EXPONENT_BITS + (1 << EXPONENT_BITS) : ACTIVATION_BITS,
    parameter int ACTIVATION_SCALE_BITS = 4,
    parameter bit REGISTERED = 1'b1,
    parameter int INPUT_WORD_BITS = VECTOR_SIZE * ACTIVATION_BITS + BLOCKS * ACTIVATION_SCALE_BITS,
    parameter int AS_PORT = ACTIVATION_SCALE_BITS > 0 ? ACTIVATION_SCALE_BITS : 1
) (
    input  logic                                   clk,
    input  logic                                   load,
    input  logic                                   padding,
    input  logic [            INPUT_WORD_BITS-1:0] word,  // {scale n-1, ..., scale 0, code V-1, ..., code 0}
    output logic                                   zero,  // of `word`, in the same cycle
    output logic [     VECTOR_SIZE*VALUE_BITS-1:0] activations,
    output logic [             BLOCKS*AS_PORT-1:0] activation_scales
);
  localparam int CODE_BITS = VECTOR_SIZE * ACTIVATION_BITS;

  localparam int VALUES = VECTOR_SIZE / BLOCKS;

  logic [VECTOR_SIZE*VALUE_BITS-1:0] values, register;
  logic [BLOCKS*AS_PORT-1:0] scales;
  element_decode #(
      .VALUES(VECTOR_SIZE),
      .BITS(ACTIVATION_BITS),
      .EXPONENT_BITS(EXPONENT_BITS)
  ) element_decode (
      .codes (word[CODE_BITS-1:0]),
      .values(values)
  );
  always_ff @(posedge clk) begin
    if (load && !zero) register <= values;
  end
  assign activations = REGISTERED ? register : values;
  if (ACTIVATION_SCALE_BITS > 0) begin : scaled
    logic [BLOCKS*AS_PORT-1:0] scale_register;
    always_ff @(posedge clk) begin
      if (load && !zero) scale_register <= scales;
    end
    assign scales = word[INPUT_WORD_BITS-1:CODE_BITS];
    assign activation_scales = REGISTERED ? scale_register : scales;
  end else begin : unscaled
    assign scales = '1;
    assign activation_scales = '1;
  end

  // A code with an exponent is 0 whatever its sign, an e8m0 scale never.
  logic [BLOCKS-1:0] live;
  for (genvar b = 0; b < BLOCKS; b++) begin : blocks
    logic [VALUES-1:0] nonzero;
    for (genvar v = 0; v < VALUES; v++) begin : codes
      localparam int AT = (b * VALUES + v) * ACTIVATION_BITS;
      assign nonzero[v] = word[AT+:ACTIVATION_BITS-(EXPONENT_BITS>0?1 : 0)] != '0;
    end
    assign live[b] = nonzero != '0 && (SCALE_KIND == 1 || scales[b*AS_PORT+:AS_PORT] != '0);
  end
  assign zero = padding || live == '0;
endmodule
