`timescale 1ns / 1ps
// dot_product: V signed products and their exact sum; combinational, or in STAGES cycles.
// docs/numerics.md (`dot`). With ACTIVATION_SIGN "both" the activation operand is A+1 bits.
// In stages all partial products are one carry-save tree (Baugh-Wooley: that of a weight's sign bit is
// complemented, and a constant row makes up for it); `enable` bit k loads the registers after stage k.
module dot_product #(
    parameter int VECTOR_SIZE = 16,
    parameter int WEIGHT_BITS = 4,
    parameter int ACTIVATION_BITS = 4,
    parameter int ACTIVATION_SIGN = 2,  // 0 unsigned, 1 signed, 2 both: as `activation_signed` says
    parameter int STAGES = 1,
    parameter int ENABLES = STAGES > 1 ? STAGES - 1 : 1,
    parameter int OPERAND_BITS = ACTIVATION_BITS + (ACTIVATION_SIGN == 2 ? 1 : 0),
    parameter int DOT_BITS = WEIGHT_BITS + OPERAND_BITS + $clog2(VECTOR_SIZE)
) (
    input  logic                                   clk,
    input  logic [                    ENABLES-1:0] enable,
    input  logic [    VECTOR_SIZE*WEIGHT_BITS-1:0] weights,
    input  logic [VECTOR_SIZE*ACTIVATION_BITS-1:0] activations,
    input  logic                                   activation_signed,
    output logic signed [DOT_BITS-1:0]             dot
);
  localparam int PRODUCT_BITS = WEIGHT_BITS + ACTIVATION_BITS + 1;

  logic takes_sign;
  assign takes_sign = (ACTIVATION_SIGN == 2) ? activation_signed : (ACTIVATION_SIGN == 1);

  if (STAGES == 1) begin : at_once
    logic [VECTOR_SIZE*PRODUCT_BITS-1:0] products;
    for (genvar v = 0; v < VECTOR_SIZE; v++) begin : multipliers
      logic signed [WEIGHT_BITS-1:0] weight;
      logic signed [ACTIVATION_BITS:0] activation;
      logic signed [PRODUCT_BITS-1:0] product;
      assign weight = weights[v*WEIGHT_BITS+:WEIGHT_BITS];
      assign activation = {
        takes_sign & activations[v*ACTIVATION_BITS+ACTIVATION_BITS-1],
        activations[v*ACTIVATION_BITS+:ACTIVATION_BITS]
      };
      assign product = PRODUCT_BITS'(weight) * PRODUCT_BITS'(activation);
      assign products[v*PRODUCT_BITS+:PRODUCT_BITS] = product;
    end
    always_comb begin
      dot = '0;
      for (int v = 0; v < VECTOR_SIZE; v++) begin
        dot = dot + DOT_BITS'($signed(products[v*PRODUCT_BITS+:PRODUCT_BITS]));
      end
    end
  end else begin : in_stages
    localparam int ROWS = VECTOR_SIZE * WEIGHT_BITS + 1;
    logic [ROWS*DOT_BITS-1:0] rows;
    for (genvar v = 0; v < VECTOR_SIZE; v++) begin : multipliers
      logic signed [ACTIVATION_BITS:0] activation;
      assign activation = {
        takes_sign & activations[v*ACTIVATION_BITS+ACTIVATION_BITS-1],
        activations[v*ACTIVATION_BITS+:ACTIVATION_BITS]
      };
      for (genvar b = 0; b < WEIGHT_BITS; b++) begin : partial
        logic [DOT_BITS-1:0] product;
        assign product = weights[v*WEIGHT_BITS+b] ? DOT_BITS'(activation) << b : '0;
        assign rows[(v*WEIGHT_BITS+b)*DOT_BITS+:DOT_BITS] = b == WEIGHT_BITS - 1 ? ~product : product;
      end
    end
    assign rows[(ROWS-1)*DOT_BITS+:DOT_BITS] = DOT_BITS'(VECTOR_SIZE);  // -x = ~x + 1, for each
    carry_save_sum #(
        .ROWS  (ROWS),
        .BITS  (DOT_BITS),
        .STAGES(STAGES)
    ) carry_save_sum (
        .clk(clk),
        .enable(enable),
        .rows(rows),
        .sum(dot)
    );
  end

  // One signedness is fixed by ACTIVATION_SIGN; the mode bit is then not read.
  logic unused;
  assign unused = &{1'b0, activation_signed, clk, enable};
endmodule
