`timescale 1ns / 1ps
// ppu_vector_max: largest |z| of some lanes; combinational.
// docs/numerics.md (PPU, `vmax`).
module ppu_vector_max #(
    parameter int VALUES = 16
) (
    input  logic [VALUES*23-1:0] magnitudes,
    output logic [         22:0] largest
);
  always_comb begin
    largest = '0;
    for (int i = 0; i < VALUES; i++) begin
      if (magnitudes[i*23+:23] > largest) largest = magnitudes[i*23+:23];
    end
  end
endmodule
