`timescale 1ns / 1ps
// block_sum: the products of a word's blocks, each rounded by itself, as WORDS words of the same sum modulo 2^BITS.
// Of two blocks they are these words; of more a carry-save tree makes them, and they are stored where `enable` is set.
// docs/numerics.md (Blocks), docs/rtl.md (Pipeline of a step).
module block_sum #(
    parameter int BLOCKS = 2,  // at least 2
    parameter int PRODUCT_BITS = 20,
    parameter int PRODUCT_SHIFT = 0,
    parameter int BITS = 24
) (
    input  logic                           clk,
    input  logic                           enable,
    input  logic [BLOCKS*PRODUCT_BITS-1:0] products,
    output logic [             2*BITS-1:0] words
);
  localparam int ROUNDED_BITS = PRODUCT_SHIFT == 0 ? PRODUCT_BITS
      : (PRODUCT_BITS > PRODUCT_SHIFT ? PRODUCT_BITS : PRODUCT_SHIFT) + 1;
  localparam logic signed [ROUNDED_BITS-1:0] HALF = PRODUCT_SHIFT == 0 ? '0
      : ROUNDED_BITS'(1) << (PRODUCT_SHIFT == 0 ? 0 : PRODUCT_SHIFT - 1);
  logic [BLOCKS*BITS-1:0] rows;
  for (genvar b = 0; b < BLOCKS; b++) begin : blocks
    logic signed [ROUNDED_BITS-1:0] rounded;
    assign rounded = (ROUNDED_BITS'($signed(products[b*PRODUCT_BITS+:PRODUCT_BITS])) + HALF) >>> PRODUCT_SHIFT;
    assign rows[b*BITS+:BITS] = BITS'(rounded);
  end

  // Calls no other function: to Icarus it would not be constant.
  function automatic int levels_of_tree(int count);
    levels_of_tree = 0;
    for (int i = 0; i < 32; i++) begin
      levels_of_tree = levels_of_tree + (count > 2 ? 1 : 0);
      count = count > 2 ? 2 * (count / 3) + count % 3 : count;
    end
  endfunction
  if (BLOCKS > 2) begin : tree
    logic [2*BITS-1:0] rest, held;
    carry_save #(
        .ROWS  (BLOCKS),
        .BITS  (BITS),
        .LEVELS(levels_of_tree(BLOCKS)),
        .REST  (2)
    ) carry_save (
        .rows(rows),
        .rest(rest)
    );
    always_ff @(posedge clk) if (enable) held <= rest;
    assign words = held;
  end else begin : two
    assign words = rows;
    logic unused;
    assign unused = &{1'b0, clk, enable};
  end
endmodule
