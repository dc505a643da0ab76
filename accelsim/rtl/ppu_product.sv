`timescale 1ns / 1ps
// ppu_product: a * b of one lane; with FINE cut into carry-save halves of b and one addition.
// docs/numerics.md (PPU), docs/rtl.md (PPU).
module ppu_product #(
    parameter int A_BITS = 24,
    parameter int SUM_BITS = A_BITS + 16,
    parameter bit FINE = 1'b0,
    parameter bit ROWS_REGISTERED = 1'b1,
    parameter bit SUM_REGISTERED = 1'b1
) (
    input  logic                       clk,
    input  logic                       rows_enable,
    input  logic                       sum_enable,
    input  logic signed [  A_BITS-1:0] a,
    input  logic        [        15:0] b,
    output logic signed [SUM_BITS-1:0] sum
);
  logic [SUM_BITS-1:0] added;
  if (FINE) begin : cut
    localparam int HALF = 8;  // bits of b in each tree, whose levels leave two rows
    localparam int LEVELS = 4;
    logic [4*SUM_BITS-1:0] rest, rows;
    for (genvar h = 0; h < 2; h++) begin : halves
      logic [HALF*SUM_BITS-1:0] partial;
      for (genvar i = 0; i < HALF; i++) begin : bits
        assign partial[i*SUM_BITS+:SUM_BITS] = b[h*HALF+i] ? SUM_BITS'(a) << (h * HALF + i) : '0;
      end
      carry_save #(
          .ROWS(HALF),
          .BITS(SUM_BITS),
          .LEVELS(LEVELS),
          .REST(2)
      ) carry_save (
          .rows(partial),
          .rest(rest[2*h*SUM_BITS+:2*SUM_BITS])
      );
    end
    stage #(.WIDTH(4 * SUM_BITS), .REGISTERED(ROWS_REGISTERED))
        stage_rows (.clk, .reset(1'b0), .enable(rows_enable), .in(rest), .out(rows));
    logic [2*SUM_BITS-1:0] last;
    carry_save #(
        .ROWS(4),
        .BITS(SUM_BITS),
        .LEVELS(2),
        .REST(2)
    ) carry_save (
        .rows(rows),
        .rest(last)
    );
    assign added = last[0+:SUM_BITS] + last[SUM_BITS+:SUM_BITS];
  end else begin : whole
    assign added = SUM_BITS'(a) * $signed(SUM_BITS'({1'b0, b}));
    logic unused;
    assign unused = &{1'b0, rows_enable, ROWS_REGISTERED};
  end
  stage #(.WIDTH(SUM_BITS), .REGISTERED(SUM_REGISTERED))
      stage_sum (.clk, .reset(1'b0), .enable(sum_enable), .in(added), .out(sum));
endmodule
