`timescale 1ns / 1ps
// ppu_reciprocal: e = ceil(log2 s) and rec[s] = (2^(15+e) + s // 2) // s.
// docs/numerics.md (PPU, per-vector `rec`). Combinational. rec depends on the digits of s below its leading one alone,
// however far they are shifted: s and 2 s have the same. So the table has a word for each digits, not for each s.
module ppu_reciprocal #(
    parameter int OUT_SCALE_BITS = 4
) (
    input  logic [OUT_SCALE_BITS-1:0] scale,  // s = 0 never occurs
    output logic [              15:0] reciprocal,
    output logic [               3:0] exponent
);
  localparam int DIGITS = OUT_SCALE_BITS - 1;
  localparam int ENTRIES = 1 << DIGITS;

  function automatic integer word(input integer s);  // s in [2^DIGITS, 2^(DIGITS+1))
    word = ((1 << (s > ENTRIES ? 16 + DIGITS : 15 + DIGITS)) + s / 2) / s;
  endfunction

  logic [3:0] leading;
  logic [OUT_SCALE_BITS-1:0] normalised;
  always_comb begin
    leading = 4'd0;
    for (int i = 1; i < OUT_SCALE_BITS; i++) begin
      if (scale[i]) leading = 4'(i);
    end
  end
  assign normalised = scale << (4'(DIGITS) - leading);

  if (DIGITS == 0) begin : one_scale
    assign reciprocal = 16'd32768;
    assign exponent = leading;
    logic unused;
    assign unused = &{1'b0, normalised};
  end else begin : table_of_digits
    logic [16*ENTRIES-1:0] words;
    for (genvar i = 0; i < ENTRIES; i++) begin : entries
      localparam integer WORD = word(ENTRIES + i);
      assign words[16*i+:16] = WORD[15:0];
    end
    logic [DIGITS-1:0] digits;
    assign digits = normalised[DIGITS-1:0];
    assign reciprocal = words[16*digits+:16];
    assign exponent = leading + 4'(digits != '0);
    logic unused;
    assign unused = &{1'b0, normalised[DIGITS]};
  end
endmodule
