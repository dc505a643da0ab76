`timescale 1ns / 1ps
// ppu_vector_max: largest |z| of some lanes; combinational.
// docs/numerics.md (PPU, `vmax`).
module ppu_vector_max #(
    parameter int VALUES = 16
) (
    input  logic [VALUES*24-1:0] z,
    output logic [         22:0] largest  // |z| <= 2^23 - 1
);
  logic [VALUES*23-1:0] magnitudes;
  for (genvar i = 0; i < VALUES; i++) begin : lanes
    logic signed [23:0] value, magnitude;
    assign value = z[i*24+:24];
    assign magnitude = value < 0 ? -value : value;
    assign magnitudes[i*23+:23] = magnitude[22:0];
    logic unused;
    assign unused = &{1'b0, magnitude[23]};
  end
  always_comb begin
    largest = '0;
    for (int i = 0; i < VALUES; i++) begin
      if (magnitudes[i*23+:23] > largest) largest = magnitudes[i*23+:23];
    end
  end
endmodule
