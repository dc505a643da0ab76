`timescale 1ns / 1ps
// ppu_magnitude: |z| of one lane; combinational.
// docs/numerics.md (PPU, `vmax`).
module ppu_magnitude (
    input  logic signed [23:0] z,
    output logic        [22:0] magnitude  // |z| <= 2^23 - 1
);
  logic signed [23:0] absolute;
  assign absolute = z < 0 ? -z : z;
  assign magnitude = absolute[22:0];
  logic unused;
  assign unused = &{1'b0, absolute[23]};
endmodule
