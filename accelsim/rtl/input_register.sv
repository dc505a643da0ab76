`timescale 1ns / 1ps
// input_register: the activation operand of all lanes, loaded in t+1 of a step.
// docs/timing.md (padding taps inject zeros) and docs/counts.md (gated steps). A vector that cannot
// contribute (padding, all codes zero, scale zero) is not loaded: `zero` says so and the lanes' multipliers
// stay still. Not REGISTERED, the word goes on as it is: each lane has a register of its own.
module input_register #(
    parameter int VECTOR_SIZE = 16,
    parameter int BLOCKS = 1,  // with a scale each, in a word
    parameter int ACTIVATION_BITS = 4,
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
    output logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] activations,
    output logic [             BLOCKS*AS_PORT-1:0] activation_scales
);
  localparam int CODE_BITS = VECTOR_SIZE * ACTIVATION_BITS;

  logic [INPUT_WORD_BITS-1:0] register;
  always_ff @(posedge clk) begin
    if (load && !zero) register <= word;
  end
  logic [INPUT_WORD_BITS-1:0] given;
  assign given = REGISTERED ? register : word;
  assign activations = given[CODE_BITS-1:0];

  localparam int BLOCK_BITS = CODE_BITS / BLOCKS;
  logic [BLOCKS-1:0] live;
  if (ACTIVATION_SCALE_BITS > 0) begin : scaled
    for (genvar b = 0; b < BLOCKS; b++) begin : blocks
      assign live[b] = word[b*BLOCK_BITS+:BLOCK_BITS] != '0
          && word[CODE_BITS+b*ACTIVATION_SCALE_BITS+:ACTIVATION_SCALE_BITS] != '0;
    end
    assign activation_scales = given[INPUT_WORD_BITS-1:CODE_BITS];
  end else begin : unscaled
    for (genvar b = 0; b < BLOCKS; b++) begin : blocks
      assign live[b] = word[b*BLOCK_BITS+:BLOCK_BITS] != '0;
    end
    assign activation_scales = '1;
  end
  assign zero = padding || live == '0;
endmodule
