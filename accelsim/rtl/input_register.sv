`timescale 1ns / 1ps
// input_register: the activation operand of all lanes, loaded in t+1 of a step.
// docs/timing.md (padding taps inject zeros) and docs/counts.md (gated steps). A vector that cannot
// contribute (padding, all codes zero, scale zero) is not loaded: `zero` says so and the lanes' multipliers
// stay still. Not REGISTERED, the word goes on as it is: each lane has a register of its own.
module input_register #(
    parameter int VECTOR_SIZE = 16,
    parameter int ACTIVATION_BITS = 4,
    parameter int ACTIVATION_SCALE_BITS = 4,
    parameter bit REGISTERED = 1'b1,
    parameter int INPUT_WORD_BITS = VECTOR_SIZE * ACTIVATION_BITS + ACTIVATION_SCALE_BITS,
    parameter int AS_PORT = ACTIVATION_SCALE_BITS > 0 ? ACTIVATION_SCALE_BITS : 1
) (
    input  logic                                   clk,
    input  logic                                   load,
    input  logic                                   padding,
    input  logic [            INPUT_WORD_BITS-1:0] word,  // {scale, code V-1, ..., code 0}
    output logic                                   zero,  // of `word`, in the same cycle
    output logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] activations,
    output logic [                    AS_PORT-1:0] activation_scale
);
  localparam int CODE_BITS = VECTOR_SIZE * ACTIVATION_BITS;

  logic [INPUT_WORD_BITS-1:0] register;
  always_ff @(posedge clk) begin
    if (load && !zero) register <= word;
  end
  logic [INPUT_WORD_BITS-1:0] given;
  assign given = REGISTERED ? register : word;
  assign activations = given[CODE_BITS-1:0];

  if (ACTIVATION_SCALE_BITS > 0) begin : scaled
    assign zero = padding || (word[CODE_BITS-1:0] == '0) || (word[INPUT_WORD_BITS-1:CODE_BITS] == '0);
    assign activation_scale = given[INPUT_WORD_BITS-1:CODE_BITS];
  end else begin : unscaled
    assign zero = padding || (word == '0);
    assign activation_scale = 1'b1;
  end
endmodule
