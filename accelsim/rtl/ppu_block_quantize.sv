`timescale 1ns / 1ps
// ppu_block_quantize: the code nearest to a shifted value, ties to even, saturating; combinational.
// docs/numerics.md (Block formats, Output, 5).
//   e8m0  the value counts in the element's lsb: its leading one says how many bits a code of that binade drops
//   e4m3  of e2m1 elements: the value is a multiple of the scale, but for its significand: what it is compared with is a
//         multiple of that, at each of the seven middles between codes
module ppu_block_quantize #(
    parameter int SCALE_KIND = 1,  // 1 e8m0, 2 e4m3
    parameter int OUT_BITS = 4,
    parameter int EXPONENT_BITS = 2,  // of the element; 0: integers
    parameter int WHOLE = 4
) (
    input  logic [   WHOLE+3:0] shifted,      // ppu_block_shift's
    input  logic [         3:0] significand,  // of an e4m3 scale
    output logic [OUT_BITS-1:0] code
);
  localparam int FRACTION_BITS = EXPONENT_BITS > 0 ? OUT_BITS - 1 - EXPONENT_BITS : OUT_BITS - 1;
  localparam logic [OUT_BITS-2:0] LARGEST = EXPONENT_BITS == 4 ? (OUT_BITS-1)'((1 << (OUT_BITS - 1)) - 2) : '1;

  logic negative, over, half, sticky;
  logic [WHOLE-1:0] whole;
  logic [OUT_BITS-2:0] magnitude;
  assign {negative, over, whole, half, sticky} = shifted;

  if (SCALE_KIND == 1) begin : rounded
    // Bits that a code drops of `whole`, the rounding bit, and what is below it.
    logic [$clog2(WHOLE+1)-1:0] dropped;
    logic [WHOLE:0] extended, rest;  // with `half`
    logic [WHOLE-1:0] kept;
    logic up;
    logic [OUT_BITS+WHOLE-1:0] counted;
    always_comb begin
      dropped = '0;
      for (int i = FRACTION_BITS + 1; i < WHOLE; i++) begin
        if (whole[i]) dropped = ($clog2(WHOLE + 1))'(i - FRACTION_BITS);
      end
    end
    assign extended = {whole, half};
    assign kept = whole >> dropped;
    assign rest = extended & (((WHOLE + 1)'(1) << dropped) - 1'b1);
    assign up = extended[dropped] && (rest != '0 || sticky || kept[0]);
    // A carry out of the significand counts the exponent up.
    assign counted = ((OUT_BITS + WHOLE)'(dropped) << FRACTION_BITS) + (OUT_BITS + WHOLE)'(kept)
        + (OUT_BITS + WHOLE)'(up);
    assign magnitude = over || counted > (OUT_BITS + WHOLE)'(LARGEST) ? LARGEST : counted[OUT_BITS-2:0];
    logic unused;
    assign unused = &{1'b0, significand};
  end else begin : compared
    // Twice the middle below code i of e2m1, in units of its lsb.
    function automatic int middle(input int i);
      middle = i < 5 ? 2 * i - 1 : i == 5 ? 10 : i == 6 ? 14 : 20;
    endfunction
    logic [WHOLE-1:0] bounds[1:7];
    for (genvar i = 1; i < 8; i++) begin : middles
      assign bounds[i] = WHOLE'(middle(i)) * WHOLE'(significand);
    end
    always_comb begin
      magnitude = '0;
      for (int i = 1; i < 8; i++) begin
        if (over || whole > bounds[i] || (whole == bounds[i] && (half || sticky || i % 2 == 0))) magnitude = 3'(i);
      end
      if (significand == '0) magnitude = '0;
    end
  end

  if (EXPONENT_BITS == 0) begin : integers
    assign code = negative ? -{1'b0, magnitude} : {1'b0, magnitude};
  end else begin : floats
    assign code = {negative, magnitude};
  end
endmodule
