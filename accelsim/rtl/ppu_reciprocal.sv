`timescale 1ns / 1ps
// ppu_reciprocal: e = ceil(log2 s) and rec[s] = (2^(15+e) + s // 2) // s, a table of 16-bit words.
// docs/numerics.md (PPU, per-vector `rec`). Combinational.
module ppu_reciprocal #(
    parameter int OUT_SCALE_BITS = 4
) (
    input  logic [OUT_SCALE_BITS-1:0] scale,
    output logic [              15:0] reciprocal,
    output logic [               3:0] exponent
);
  localparam int ENTRIES = 1 << OUT_SCALE_BITS;

  function automatic integer log2_ceil(input integer s);
    integer e;
    e = 0;
    for (integer i = 0; i < 10; i = i + 1) begin
      if ((1 << i) < s) e = i + 1;
    end
    log2_ceil = e;
  endfunction

  function automatic integer word(input integer s);
    // s = 0 never occurs
    word = s == 0 ? 0 : ((1 << (15 + log2_ceil(s))) + s / 2) / s;
  endfunction

  logic [16*ENTRIES-1:0] words;
  for (genvar s = 0; s < ENTRIES; s++) begin : entries
    localparam integer WORD = word(s);
    assign words[16*s+:16] = WORD[15:0];
  end
  assign reciprocal = words[16*scale+:16];

  always_comb begin
    exponent = 4'd0;
    for (int i = 0; i < OUT_SCALE_BITS; i++) begin
      if (32'(scale) > (1 << i)) exponent = 4'(i + 1);
    end
  end
endmodule
