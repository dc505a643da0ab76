`timescale 1ns / 1ps
// ppu_block_scale: the scale of a block by the largest |z| in it; combinational, but for a register behind the
// exponent (EXPONENT_REGISTERED).
// docs/numerics.md (Block formats, Output, 4).
//   e8m0  the leading one's position, plus the layer's `out_exponent`, limited to codes 0 to 254; 0 for a block of zeros
//   e4m3  of e2m1 elements: vmax / 6 is z / UNIT in units of the smallest subnormal. The exponent comes of comparing with
//         constants, the significand of counting which of 1/2, 3/2 .. 31/2 of a step the shifted value passes.
module ppu_block_scale #(
    parameter int SCALE_KIND = 1,  // 1 e8m0, 2 e4m3
    parameter bit EXPONENT_REGISTERED = 1'b0
) (
    input  logic               clk,
    input  logic               enable,
    input  logic        [22:0] largest,
    input  logic signed [11:0] out_exponent,  // of the layer: e - 22 - emax + 127
    output logic        [ 7:0] scale
);
  if (SCALE_KIND == 1) begin : powers
    logic [5:0] leading, leading_held;  // {a one, its position}
    always_comb begin
      leading = '0;
      for (int i = 0; i < 23; i++) if (largest[i]) leading = 6'(32 + i);
    end
    stage #(.WIDTH(6), .REGISTERED(EXPONENT_REGISTERED))
        stage_leading (.clk, .reset(1'b0), .enable, .in(leading), .out(leading_held));
    logic signed [12:0] exponent;
    assign exponent = 13'(out_exponent) + $signed({8'b0, leading_held[4:0]});
    assign scale = !leading_held[5] || exponent < 0 ? '0 : exponent > 13'sd254 ? 8'd254 : exponent[7:0];
  end else begin : floats
    localparam int UNIT = 24;  // z of 6 * 2^-9: 6 * 2^(11 - 9)
    logic [3:0] exponent, exponent_held;  // the code's field, less 1
    logic [23:0] twice, kept;
    logic [10:0] steps, steps_held;  // half steps of the binade
    logic sticky, sticky_held;
    always_comb begin
      exponent = '0;
      for (int i = 1; i < 15; i++) if (largest >= 23'(UNIT * 8) << i) exponent = 4'(i);
    end
    assign twice = {largest, 1'b0};
    assign kept = twice >> exponent;
    assign steps = kept[10:0];  // largest < 2^23 and UNIT * 8 * 2^15 > 2^22
    assign sticky = (kept << exponent) != twice;
    stage #(.WIDTH(16), .REGISTERED(EXPONENT_REGISTERED))
        stage_steps (.clk, .reset(1'b0), .enable, .in({exponent, steps, sticky}),
                     .out({exponent_held, steps_held, sticky_held}));
    logic [4:0] significand;
    logic [7:0] code;
    always_comb begin
      significand = '0;
      for (int s = 1; s <= 16; s++) begin
        if (steps_held > 11'(UNIT * (2 * s - 1))
            || (steps_held == 11'(UNIT * (2 * s - 1)) && (sticky_held || s % 2 == 0))) significand = 5'(s);
      end
      code = {1'b0, exponent_held, 3'b0} + 8'(significand);  // a significand of 8 or more counts the exponent up
      scale = code > 8'd126 ? 8'd126 : code;
    end
    logic unused;
    assign unused = &{1'b0, out_exponent, kept[23:11]};
  end
endmodule
