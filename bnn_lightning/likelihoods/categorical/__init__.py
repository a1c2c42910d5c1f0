"""Class labels: softmax outputs, their uncertainties, scores, calibration and decisions."""
