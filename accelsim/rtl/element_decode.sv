`timescale 1ns / 1ps
// element_decode: codes as two's complement integers, what they are worth in units of their element's lsb;
// combinational.
// docs/numerics.md (Block formats). Integer codes (EXPONENT_BITS 0) are their own values; of others sign, exponent
// and fraction, subnormals included. A zero with a sign is 0.
module element_decode #(
    parameter int VALUES = 16,
    parameter int BITS = 4,
    parameter int EXPONENT_BITS = 2,
    parameter int FRACTION_BITS = BITS - 1 - EXPONENT_BITS,
    parameter int VALUE_BITS = EXPONENT_BITS > 0 ? FRACTION_BITS + (1 << EXPONENT_BITS) : BITS
) (
    input  logic [      VALUES*BITS-1:0] codes,
    output logic [VALUES*VALUE_BITS-1:0] values
);
  if (EXPONENT_BITS == 0) begin : integers
    assign values = codes;
  end else begin : floats
    for (genvar v = 0; v < VALUES; v++) begin : elements
      logic [EXPONENT_BITS-1:0] exponent;
      logic [VALUE_BITS-1:0] significand, magnitude;
      assign exponent = codes[v*BITS+FRACTION_BITS+:EXPONENT_BITS];
      assign significand = VALUE_BITS'({exponent != '0, codes[v*BITS+:FRACTION_BITS]});
      assign magnitude = significand << (exponent == '0 ? exponent : exponent - 1'b1);
      assign values[v*VALUE_BITS+:VALUE_BITS] = codes[v*BITS+BITS-1] ? -magnitude : magnitude;
    end
  end
endmodule
